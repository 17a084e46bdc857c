//! Changes at run time, through the control socket of a live gateway: kept over a reload, and gone when the file says
//! something else.

use crate::WEB;
use crate::world::{Running, World, eventually, run};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// A configuration with the first two servers.
fn two(world: &World) -> String {
    world.configuration("", &[("web", "80/tcp", 2, 8080)])
}

/// The servers that answer so many requests.
fn answers(world: &World, count: usize) -> BTreeSet<String> {
    let ask = |at: usize| {
        let output = run(&mut world.curl(at % 2, ""));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    (0..count).map(ask).collect()
}

/// A slow download, and the number of its server.
fn download(world: &World) -> (Running, String) {
    let before: Vec<_> = world.flows(&[]).into_iter().map(|row| row.id).collect();
    let mut curl = world.curl(0, "big");
    let running = Running::start(curl.args(["--limit-rate", "200k", "-o", "/dev/null"]).stderr(Stdio::null()));
    let mut server = String::new();
    eventually("a download under way", || {
        let rows = world.flows(&[]);
        let row = rows.into_iter().find(|row| !before.contains(&row.id) && row.bytes_out > 10_000);
        server = row.map(|row| row.server).unwrap_or_default();
        !server.is_empty()
    });
    (running, server["server".len()..].to_owned())
}

fn set(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|one| (*one).to_owned()).collect()
}

#[test]
fn servers_are_added_and_removed_while_connections_go_on() {
    let world = World::new("change");
    let _nginx = world.nginx();
    let gateway = world.start(&two(&world));
    let (mut before, first) = download(&world);
    assert_eq!(answers(&world, 8), set(&["1", "2"]));
    let (said, code) = world.said("server add web/server3 address=10.99.3.2,fd99:0:0:3::2 port=8080 weight=2");
    assert_eq!((said.as_str(), code), ("server web/server3: added\n", Some(0)));
    assert_eq!(answers(&world, 12), set(&["1", "2", "3"]), "of both families, and their answers come back");
    // The removed server keeps its download, and gets nothing new.
    let (said, code) = world.said(&format!("server remove server{first}"));
    let want = format!("server web/server{first}: removed; it has ");
    assert!(said.starts_with(&want) && code == Some(0), "{said}");
    let left: BTreeSet<String> = set(&["1", "2", "3"]).into_iter().filter(|name| *name != first).collect();
    assert_eq!(answers(&world, 12), left);
    assert!(before.ended().is_none(), "the download goes on");
    // Connections that have ended are remembered for minutes, and nobody waits for that.
    let (said, code) = world.said("server drain server3 --wait");
    assert!(code == Some(0) && said.contains("server web/server3: drained after "), "{said}");
    assert!(said.contains("ended connections are remembered until their timeouts"), "{said}");
    assert!(!world.flows(&["--server", "web/server3"]).is_empty());
    // Back again: it gets new flows, and the download that never stopped is its own.
    world.said(&format!("changes drop server web/server{first}"));
    assert!(answers(&world, 8).contains(&first) && before.ended().is_none());
    // At once, with its flows.
    let (said, code) = world.said(&format!("server remove server{first} --now --wait"));
    assert!(code == Some(0) && said.ends_with("removed, no flows left\n"), "{said}");
    assert_eq!(before.wait("the reset of the download").code(), Some(56), "curl: connection reset by peer");
    let log = world.log();
    assert!(log.contains("uid 0, pid ") && log.contains(": server web/server3: added"), "{log}");
    let history = world.said("history").0;
    assert!(history.contains("server web/server3: added") && history.contains("uid 0, pid "), "{history}");
    assert!(gateway.terminate().success());
}

#[test]
fn changes_are_kept_over_reloads_until_the_file_says_something_else() {
    let world = World::new("change-kept");
    let _nginx = world.nginx();
    let text = world.configuration("", &[WEB]);
    let gateway = world.start(&text);
    for command in [
        "server weight server1 5",
        "server weight server2 7",
        "server drain server3 --deadline 1h",
        "server add web/more address=10.99.3.9 port=8080 state=disabled",
        "service web off",
    ] {
        assert_eq!(world.said(command).1, Some(0), "{command}");
    }
    let in_force = || (world.said("changes --json").0.lines().count(), world.server_rows());
    let (changes, rows) = in_force();
    assert_eq!((changes, rows.len()), (5, 4));
    let (said, code) = world.said("reload");
    assert_eq!((said.as_str(), code), ("no changes\n", Some(0)));
    // The file changes one of the keys, and something else.
    let newer = text
        .replace("name = \"server1\"\n", "name = \"server1\"\nweight = 2\n")
        .replace("name = \"server2\"\n", "name = \"server2\"\nmax-flows = 100\n");
    std::fs::write(world.file(), newer).unwrap();
    let (said, code) = world.said("reload");
    assert_eq!(code, Some(0), "{said}");
    for line in [
        "server web/server1: weight 5 -> 2 (new flows only)",
        "server web/server2: max-flows (no limit) -> 100 (new flows only)",
        "weight of server web/server1: the file says 2, so the change to 5 by uid 0, pid",
    ] {
        assert!(said.contains(line), "want {line:?} in: {said}");
    }
    let (changes, rows) = in_force();
    assert_eq!((changes, rows.len()), (4, 4));
    let weights: Vec<u16> = rows.iter().map(|row| row.weight).collect();
    assert_eq!(weights, [2, 7, 1, 1]);
    assert!(rows[2].drain_deadline_ms.is_some() || rows[2].flows == 0, "{:?}", rows[2]);
    let code = run(world.curl(0, "").args(["--max-time", "5"])).status.code();
    assert_eq!(code, Some(7), "the service is still off: connection refused");
    // What is saved is what is in force: once it is the file, nothing differs.
    let saved = world.said("changes save").0;
    std::fs::write(world.file(), saved).unwrap();
    let (said, code) = world.said("reload");
    assert!(code == Some(0) && said.contains("the file says the same"), "{said}");
    assert_eq!(world.said("changes").0, "everything is as in the file\n");
    assert_eq!(world.server_rows().iter().map(|row| row.weight).collect::<Vec<_>>(), weights);
    // A wrong file leaves the changes as they are.
    assert_eq!(world.said("server weight server1 9").1, Some(0));
    std::fs::write(world.file(), "[[service]]\n").unwrap();
    assert_eq!(world.said("reload").1, Some(1));
    assert_eq!((world.server_row(1).weight, world.said("server weight server1 8").1), (9, Some(0)));
    assert!(gateway.terminate().success());
}

/// What differs from the file, without when it was changed.
fn differing(world: &World) -> Vec<serde_json::Value> {
    let without_ages = |line: &str| {
        let mut row: serde_json::Value = serde_json::from_str(line).unwrap();
        ["ago_ms", "deadline_ms"].iter().for_each(|key| drop(row.as_object_mut().unwrap().remove(*key)));
        row
    };
    world.said("changes --json").0.lines().map(without_ages).collect()
}

fn change_everything(world: &World) {
    for command in [
        "server add web/server3 address=10.99.3.2,fd99:0:0:3::2 port=8080",
        "server weight web/server1 5",
        "server set web/server1 max-flows=1000",
        "server drain web/server1",
        "server disable web/server2",
        "server remove other/server2",
        "server drain other/server1 --deadline 1h",
        "pool set web passive.failures=3",
        "rule block off",
        "service other off",
    ] {
        let (said, code) = world.said(command);
        assert_eq!(code, Some(0), "{command}: {said}");
    }
}

/// Everything that can be changed is changed, the gateway ends and starts again, and all of it holds; then a file that says
/// something else for some keys.
fn changes_outlive(name: &str, end: impl Fn(Running)) {
    let world = World::new(name);
    let _nginx = world.nginx();
    let state = world.dir.path().join("state");
    let text = world.configuration(
        &format!("state-file = {state:?}\nstate-interval = \"10m\""),
        &[("web", "80/tcp", 2, 8080), ("other", "81/tcp", 2, 8081)],
    ) + "[[rule]]\nname = \"block\"\nfrom = \"198.51.100.0/24\"\naction = \"drop\"\n";
    let gateway = world.start(&text);
    change_everything(&world);
    let (mut running, server) = download(&world);
    assert_eq!(server, "3", "the only one that takes new flows is the added one");
    // A change is saved soon, with the flows of that time.
    assert_eq!(world.said("server set web/server3 max-flows=77").1, Some(0));
    let has_last = |bytes: Vec<u8>| bytes.windows(b"\"set\":\"77\"".len()).any(|part| part == b"\"set\":\"77\"");
    eventually("a state with the last change", || std::fs::read(&state).is_ok_and(has_last));
    let (before, rows) = (differing(&world), world.server_rows().len());
    assert_eq!((before.len(), rows), (11, 4));
    end(gateway);
    let gateway = world.start(&text);
    assert_eq!(differing(&world), before);
    let log = world.log();
    assert!(log.contains("11 changes by operators are kept;"), "{log}");
    assert_eq!(answers(&world, 4), set(&["3"]));
    assert!(running.ended().is_none() && !world.flows(&["--server", "web/server3"]).is_empty(), "{log}");
    let rules = world.rules();
    assert!(!rules[0].enabled && world.said("services").0.contains("other (off)"), "{rules:?}");
    let deadline = world.server_rows().into_iter().find(|row| row.pool == "other").unwrap();
    assert_eq!((deadline.server.as_str(), deadline.admin), ("server1", equipoise::balance::Admin::Draining));
    let history = world.said("history").0;
    assert!(history.contains("server web/server3: added") && history.contains("rule block: enabled"), "{history}");
    let (said, code) = world.said("reload");
    assert_eq!((said.as_str(), code), ("no changes\n", Some(0)));
    end(gateway);
    // The file is another one by then, for two of the keys, and has one of the others as it was changed.
    let newer = text.replacen("name = \"server1\"\n", "name = \"server1\"\nweight = 2\n", 1).replacen(
        "name = \"server2\"\n",
        "name = \"server2\"\nstate = \"disabled\"\n",
        1,
    );
    let gateway = world.start(&newer);
    let log = world.log();
    for line in [
        "weight of server web/server1: the file says 2, so the change to 5 by uid 0, pid",
        "state of server web/server2: the file says the same, so the change to \"disabled\"",
        "9 changes by operators are kept, 2 are not",
    ] {
        assert!(log.contains(line), "want {line:?} in: {log}");
    }
    let left = |row: &&serde_json::Value| {
        let is = |server, key| row["object"]["name"] == server && row["key"] == key;
        !is("web/server1", "weight") && !is("web/server2", "state")
    };
    assert_eq!(differing(&world), before.iter().filter(left).cloned().collect::<Vec<_>>());
    assert_eq!(world.server_row(1).weight, 2);
    assert!(running.ended().is_none(), "the download goes on");
    assert!(gateway.terminate().success());
}

#[test]
fn changes_outlive_a_gateway_that_stops() {
    changes_outlive("change-stop", |gateway| assert!(gateway.terminate().success()));
}

#[test]
fn changes_outlive_a_gateway_that_is_killed() {
    changes_outlive("change-kill", Running::kill);
}

#[test]
fn without_a_state_file_changes_end_with_the_gateway_and_eqctl_says_so() {
    let world = World::new("change-lost");
    let text = two(&world);
    let gateway = world.start(&text);
    assert_eq!(world.said("server weight server1 5").1, Some(0));
    let told = world.said("changes").0;
    assert!(told.contains("these changes end with the gateway"), "{told}");
    assert!(gateway.terminate().success());
    let gateway = world.start(&text);
    assert_eq!(world.said("changes").0, "everything is as in the file\n");
    assert!(gateway.terminate().success());
}

#[test]
fn a_service_that_is_off_refuses_new_connections_and_keeps_its_own() {
    let world = World::new("change-off");
    let _nginx = world.nginx();
    let gateway = world.start(&world.configuration("", &[WEB]));
    let (mut running, _) = download(&world);
    let code = |family| run(world.curl(family, "").args(["--max-time", "5"])).status.code();
    for _ in 0..2 {
        assert_eq!(world.said("service web off").1, Some(0));
        assert_eq!([0, 1].map(code), [Some(7); 2], "connection refused");
        assert!(world.said("services").0.contains("web (off)"));
        let explained = world.said("flows").0;
        assert!(explained.lines().count() > 1 && running.ended().is_none(), "the download goes on");
        assert_eq!(world.said("service web on").1, Some(0));
        assert_eq!([0, 1].map(code), [Some(0); 2]);
    }
    assert_eq!(world.said("changes").0, "everything is as in the file\n");
    assert!(gateway.terminate().success());
}

#[test]
fn a_wait_ends_with_the_gateway() {
    let world = World::new("change-wait");
    let _nginx = world.nginx();
    let gateway = world.start(&world.configuration("", &[WEB]));
    let (_running, server) = download(&world);
    let mut waiting = Command::new(env!("CARGO_BIN_EXE_eqctl"));
    let waiting =
        waiting.arg("--socket").arg(world.socket()).args(["server", "drain", &format!("server{server}"), "--wait"]);
    let mut waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It has changed the state and looked once by then.
    let mut said = BufReader::new(waiting.stdout.take().unwrap()).lines();
    assert!(said.by_ref().any(|line| line.unwrap().contains("1 flow left, no deadline")), "it ended early");
    assert!(gateway.terminate().success());
    let output = waiting.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the gateway stopped while") && said.contains("with 1 flow left"), "{said}");
}
