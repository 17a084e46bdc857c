//! Who serves when the first choice cannot: last resorts, backups, priority groups, servers at their limit.

use crate::WEB;
use crate::world::{Lines, Running, SERVICE, World, eventually, run};

/// The result of a request: the number of the server that responded, or curl's exit code.
fn fate(world: &World, family: usize) -> Result<usize, i32> {
    let output = run(world.curl(family, "").args(["--max-time", "1"]));
    match output.status.code() {
        Some(0) => Ok(String::from_utf8(output.stdout).unwrap().trim().parse().expect("a server's number")),
        code => Err(code.expect("no signal")),
    }
}

/// Returns who responds to this many requests of each family: a count per server.
fn spread(world: &World, count: usize) -> [usize; 3] {
    let mut all = [0; 3];
    for i in 0..2 * count {
        all[fate(world, i % 2).expect("an answer") - 1] += 1;
    }
    all
}

#[test]
fn without_any_server_the_last_resort_responds_as_configured() {
    let world = World::new("resort");
    let _nginx = world.nginx();
    let sorry = format!(
        "[[pool]]\nname = \"sorry\"\n[[pool.server]]\nname = \"sorry\"\naddress = [\"{}\", \"{}\"]\nport = 8080\n",
        World::server_address(3, 0),
        World::server_address(3, 1)
    );
    let two = ("web", "80/tcp", 2, 8080);
    for (service, rest, want) in [
        ("last-resort = \"drop\"", "", Err(28)),
        ("last-resort = \"reset\"", "", Err(7)),
        ("last-resort = \"unreachable\"", "", Err(7)),
        ("last-resort-pool = \"sorry\"", sorry.as_str(), Ok(3)),
    ] {
        let gateway = world.start(&world.probing(two, Lines { service, rest, ..Lines::default() }));
        for n in [1, 2] {
            assert!(fate(&world, 0).is_ok_and(|server| server != 3), "{service}");
            world.change(&format!("server disable web/server{n}"));
        }
        for family in [0, 1] {
            assert_eq!(fate(&world, family), want, "{service}, family {family}");
        }
        world.change("server enable web/server2");
        assert_eq!([0, 1].map(|family| fate(&world, family)), [Ok(2); 2], "{service}");
        assert!(gateway.terminate().success());
    }
}

#[test]
fn backups_and_lower_groups_stand_by_until_they_are_needed() {
    let world = World::new("backup");
    let _nginx = world.nginx();
    let base = world.probing(WEB, Lines::default());
    let third = |text: &str, line: &str| format!("{text}{line}\n");
    let gateway = world.start(&third(&base, "backup = true"));
    assert_eq!(spread(&world, 6), [6, 6, 0]);
    world.change("server disable web/server1");
    assert_eq!(spread(&world, 3), [0, 6, 0]);
    world.change("server drain web/server2");
    assert_eq!(spread(&world, 3), [0, 0, 6]);
    world.change("server enable web/server1");
    assert_eq!(spread(&world, 3), [6, 0, 0]);
    assert!(gateway.terminate().success());

    let lines = Lines { service: "algorithm = \"priority\"", ..Lines::default() };
    let _gateway = world.start(&third(&world.probing(WEB, lines), "priority = 2"));
    assert_eq!(spread(&world, 6), [6, 6, 0]);
    for n in [1, 2] {
        world.change(&format!("server weight web/server{n} 0"));
    }
    assert_eq!(spread(&world, 3), [0, 0, 6]);
}

#[test]
fn a_full_server_gets_no_more_until_a_flow_ends() {
    let world = World::new("full");
    let _nginx = world.nginx();
    let one = ("web", "80/tcp", 1, 8080);
    let configuration = world.probing(one, Lines { service: "last-resort = \"reset\"", ..Lines::default() });
    let _gateway = world.start(&(configuration + "max-flows = 2\n"));
    let curls = [0, 1].map(|family| Running::start(world.curl(family, "big").args(["-o", "/dev/null"])));
    eventually("two downloads under way", || world.flows(&[]).iter().filter(|row| row.bytes_out > 10_000).count() == 2);
    assert_eq!([0, 1].map(|family| fate(&world, family)), [Err(7); 2], "no room at {SERVICE:?}");
    let flows = world.flows(&[]);
    world.change(&format!("kill {}", flows[0].id));
    assert_eq!(fate(&world, 0), Ok(1));
    drop(curls);
}
