//! Established TCP connections that the kernel carries past the gateway's device.

use crate::Service;
use crate::world::{Running, SERVICE, World, eventually, program, run};
use equipoise::control::{Totals, protocol::Status};
use equipoise::engine::FlowRow;
use equipoise::gateway::netns::Namespace;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// One server, and what connections of a test do there is up to the test.
const TALK: Service = ("talk", "7000/tcp", 1, 7001);
const PORT: u16 = 7001;
const ON: &str = "shortcut = true";

/// A connection through the gateway, of which both ends are here.
struct Talk {
    client: TcpStream,
    server: TcpStream,
}

impl Talk {
    fn open(world: &World, family: usize) -> Talk {
        let own = SocketAddr::new(World::server_address(1, family), PORT);
        let listener = world.servers[0].run(|| TcpListener::bind(own)).unwrap().unwrap();
        let to = SocketAddr::new(SERVICE[family].parse().unwrap(), 7000);
        let client = world.client.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(5))).unwrap().unwrap();
        let (server, _) = listener.accept().unwrap();
        for end in [&client, &server] {
            end.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            end.set_nodelay(true).unwrap();
        }
        Talk { client, server }
    }

    /// Asks and answers so many times.
    fn exchange(&mut self, times: usize) {
        let mut buffer = [0; 100];
        for _ in 0..times {
            self.client.write_all(&[7; 100]).unwrap();
            self.server.read_exact(&mut buffer).unwrap();
            self.server.write_all(&[8; 100]).unwrap();
            self.client.read_exact(&mut buffer).unwrap();
        }
    }

    /// Has it carried by the kernel.
    fn last(&mut self, world: &World) {
        eventually("the kernel to carry the connection", || {
            self.exchange(10);
            world.flows(&[]).iter().any(|flow| flow.shortcut)
        });
    }
}

fn start(world: &World, gateway: &str) -> Running {
    let running = world.start(&world.configuration(&format!("{ON}\n{gateway}"), &[TALK]));
    assert!(world.log().contains("shortcut: the kernel carries"), "{}", world.log());
    running
}

/// Packets that entered the device, and packets that the kernel has carried past it.
fn ways(world: &World) -> (u64, u64) {
    let Totals { device, engine, .. } = world.totals();
    (device.read, engine.shortcut.unwrap().packets)
}

fn flow(world: &World) -> FlowRow {
    let mut flows = world.flows(&[]);
    assert_eq!(flows.len(), 1, "{flows:?}");
    flows.remove(0)
}

#[test]
fn the_kernel_carries_a_connection_until_it_is_closed() {
    let world = World::new("short");
    world.plain_cables();
    let running = start(&world, "");
    for family in [0, 1] {
        let mut talk = Talk::open(&world, family);
        talk.last(&world);
        let ((through, past), row) = (ways(&world), flow(&world));
        talk.exchange(200);
        eventually("the report", || ways(&world).1 >= past + 400);
        assert_eq!(ways(&world).0, through, "none of them entered the device");
        let (now, server) = (flow(&world), world.server_row(1));
        assert!(now.packets_in >= row.packets_in + 200 && now.packets_out >= row.packets_out + 200, "{now:?}");
        assert_eq!(server.packets_in + server.packets_out, {
            let totals = world.totals().engine;
            totals.translated + totals.shortcut.unwrap().packets
        });
        // The end comes through the gateway.
        drop(talk);
        eventually("the end of the connection", || flow(&world).state == equipoise::flow::TimeoutState::Closing);
        assert!(!flow(&world).shortcut);
        world.change("kill service talk");
        eventually("no flow", || world.flows(&[]).is_empty());
    }
    assert!(running.terminate().success());
}
