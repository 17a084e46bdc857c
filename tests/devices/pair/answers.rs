//! Answers to SYNs that wait until the other gateway knows of the connection, and servers whose health a standby has from the
//! active gateway.

use super::{Second, in_step, sync};
use crate::state::{TALK, serve};
use crate::world::{Lines, SERVICE, World, eventually, program, run};
use equipoise::balance::Health;
use equipoise::control::SyncRow;
use equipoise::engine::ServerRow;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

fn row(world: &World) -> SyncRow {
    serde_json::from_slice(&world.eqctl_raw(&["sync", "--json"]).stdout).unwrap()
}

/// Has the client send nothing that acknowledges, or send it again.
fn acknowledges(world: &World, does: bool) {
    let words = if does {
        "delete table inet quiet".to_owned()
    } else {
        "add table inet quiet; add chain inet quiet out { type filter hook output priority 0; }; add rule inet quiet out \
         tcp dport 80 tcp flags & (syn | rst | ack) == ack drop"
            .to_owned()
    };
    let output = run(world.client.command(program("nft").to_str().unwrap()).arg(words));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_connection_whose_client_has_just_got_its_answer_outlives_the_gateway() {
    let world = World::new("pair-answer");
    let second = Second::new(&world, "pair-answer");
    let more = "before-answer = true";
    let one = world.start(&(world.configuration("", &[TALK]) + &sync(1, world.dir.path(), more)));
    world.change("role active");
    let two = second.start(&second.configuration(&world, more));
    in_step(&world, &second);
    world.servers.iter().for_each(serve);
    // To its client, each is established; the gateway never hears of that.
    acknowledges(&world, false);
    let mut streams: Vec<TcpStream> = (0..10)
        .map(|n| {
            let to = SocketAddr::new(SERVICE[n % 2].parse::<IpAddr>().unwrap(), 80);
            let opens = || TcpStream::connect_timeout(&to, Duration::from_secs(10)).unwrap();
            let stream = world.client.run(opens).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream
        })
        .collect();
    let held = row(&world).held.expect("the key is set");
    assert!(held.held >= 10 && held.not_held == 0 && held.acknowledged > 0, "{held:?}");
    let text = String::from_utf8(world.eqctl_raw(&["sync"]).stdout).unwrap();
    assert!(text.contains("SYN-ACKs held for two"), "{text}");
    one.kill();
    // Who finds nobody there is sent to nobody.
    eventually("the second gateway to look for the first", || {
        second.sync().trouble.is_some_and(|why| why.contains("refused") && !why.contains("may say more"))
    });
    assert_eq!(second.totals().engine.half_open, 10, "{}", second.log());
    second.change("role active");
    second.lead(&world);
    acknowledges(&world, true);
    for (n, stream) in streams.iter_mut().enumerate() {
        let mut byte = [0];
        stream.write_all(b"ex").unwrap_or_else(|e| panic!("connection {n}: {e}"));
        stream.read_exact(&mut byte).unwrap_or_else(|e| panic!("connection {n}: {e}"));
    }
    let totals = second.totals();
    assert_eq!((totals.engine.flows, totals.engine.flows_opened), (10, 10), "none is new: {}", second.log());
    assert!(two.terminate().success());
}

#[test]
fn a_standby_without_a_way_to_probe_has_the_servers_health_from_the_active_gateway() {
    let world = World::new("pair-health");
    let second = Second::new(&world, "pair-health");
    let more = "health = 'active'";
    let pool = "[[pool.monitor]]\nname = 'ping'\ntype = 'icmp'\ninterval = '200ms'\ntimeout = '200ms'\n";
    let text = world.probing(TALK, Lines { rest: pool, ..Lines::default() });
    let one = world.start(&(text.clone() + &sync(1, world.dir.path(), more)));
    world.change("role active");
    let socket = second.dir.path().join("control.sock");
    let own = text.replace(&format!("{:?}", world.socket()), &format!("{socket:?}"));
    let two = second.start(&(own + &sync(2, second.dir.path(), more)));
    in_step(&world, &second);
    eventually("the second gateway to follow", || second.sync().follows_health);
    let lines = || String::from_utf8(second.eqctl(&["servers", "--json"]).stdout).unwrap();
    let rows = || lines().lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<ServerRow>>();
    let up = |n: usize| rows().iter().any(|row| row.server == format!("server{n}") && row.health == Health::Up);
    // One that the first one loses is down there, too.
    let link = ["link", "set", "eth0", "down"];
    assert!(run(world.servers[0].command(program("ip").to_str().unwrap()).args(link)).status.success());
    eventually("the second gateway to hear that one is down", || !up(1));
    assert!(up(2) && up(3) && second.sync().follows_health, "{}", second.log());
    assert!(second.log().contains("reported by the active gateway"), "{}", second.log());
    assert!(two.terminate().success() && one.terminate().success());
}
