//! What `check --live` names: whatever is in the way of a running gateway.

use super::*;

#[test]
fn a_live_check_names_what_is_in_the_way_of_a_running_gateway() {
    let world = World::new("livecheck");
    let _nginx = world.nginx();
    let _gateway = world.start(&world.configuration("", &[WEB]));
    let check = |json: &[&str]| {
        let mut command = world.gateway.command(env!("CARGO_BIN_EXE_equipoise"));
        let output = run(command.args(["check", "--live", "--config"]).arg(world.file()).args(json));
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = check(&[]);
    assert!(code == Some(0) && said.contains("nothing found"), "{said}");
    let mut nft = world.gateway.command(program("nft").to_str().unwrap());
    let chain =
        "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }";
    assert!(run(nft.arg(chain)).status.success());
    ip(
        &world,
        "-4",
        "route add default via 198.51.100.2 table 100\nrule add priority 50 from 10.99.0.0/16 lookup 100\n",
    );
    assert!(!run(world.curl(0, "").args(["--max-time", "1"])).status.success(), "both are in the way");
    let (code, said) = check(&[]);
    assert_eq!(code, Some(1));
    for want in [
        "chain FORWARD of table ip filter has policy drop",
        "iptables -I FORWARD -i equipoise0 -j ACCEPT; iptables -I FORWARD -o equipoise0 -j ACCEPT",
        "from 10.99.0.0/16 lookup 100\" comes before those of the gateway and takes the replies of server 10.99.1.2",
    ] {
        assert!(said.contains(want), "{want} in: {said}");
    }
    let (code, said) = check(&["--json"]);
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, report["system"].as_array().map(Vec::len)), (Some(1), Some(2)), "{said}");
    let mut nft = world.gateway.command(program("nft").to_str().unwrap());
    assert!(
        run(nft.arg(
            "add rule ip filter FORWARD iifname equipoise0 accept; add rule ip filter FORWARD oifname equipoise0 accept"
        ))
        .status
        .success()
    );
    ip(&world, "-4", "rule delete priority 50\n");
    assert_eq!(check(&[]).0, Some(0));
    serves_within_a_second(&world, "both are mended");
}

#[test]
fn two_gateways_on_one_machine_are_told_of_each_other() {
    let world = World::new("twins");
    let _nginx = world.nginx();
    let first = world.configuration("", &[WEB]);
    let second = first
        .replace("[gateway]\n", "[gateway]\ndevice = \"equipoise1\"\nroute-table = 4343\nrule-priority = 5000\n")
        .replace("control.sock", "second.sock")
        .replace(SERVICE[0], "192.0.2.81")
        .replace(SERVICE[1], "2001:db8:80::81");
    let check = |configuration: &str| {
        let file = world.dir.path().join("checked.toml");
        std::fs::write(&file, configuration).unwrap();
        let mut command = world.gateway.command(env!("CARGO_BIN_EXE_equipoise"));
        let output = run(command.args(["check", "--live", "--config"]).arg(file));
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(check(&second).0, Some(0), "{}", check(&second).1);
    let gateway = world.start(&first);
    assert_eq!(check(&first).0, Some(0), "{}", check(&first).1);
    let told = |device: &str, table: u32| {
        format!(
            "another gateway on this machine (device {device}, route-table {table}) marks packets with the same bits"
        )
    };
    let (code, said) = check(&second);
    assert!(code == Some(1) && said.contains(&told("equipoise0", 4242)), "{said}");
    assert!(said.contains("a network namespace of its own"), "{said}");
    let path = world.dir.path().join("second");
    let mut command = world.equipoise(&second, &[]);
    let _second = Running::start(command.stderr(std::fs::File::create(&path).unwrap()));
    eventually("its warning", || std::fs::read_to_string(&path).unwrap().contains(&told("equipoise0", 4242)));
    eventually("the other side to know", || check(&first).1.contains(&told("equipoise1", 4343)));
    // The same address in both.
    let (code, said) = check(&second.replace("192.0.2.81", SERVICE[0]));
    assert!(code == Some(1), "{said}");
    assert!(said.contains("192.0.2.80/32 is routed to device equipoise0 of another gateway on this machine"), "{said}");
    // What a killed one leaves behind is in nobody's way.
    gateway.kill();
    eventually("the end of its device", || check(&second).0 == Some(0));
}

#[test]
fn a_live_check_names_whoever_uses_the_bits_of_the_mark() {
    let world = World::new("bits");
    let _nginx = world.nginx();
    let _gateway = world.start(&world.configuration("", &[WEB]));
    let check = || {
        let mut command = world.gateway.command(env!("CARGO_BIN_EXE_equipoise"));
        let output = run(command.args(["check", "--live", "--config"]).arg(world.file()));
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(check().0, Some(0), "{}", check().1);
    ip(&world, "-4", "rule add priority 6000 fwmark 0x10000000/0xf0000000 lookup 100\n");
    let nft = |commands: &str| {
        let mut nft = world.gateway.command(program("nft").to_str().unwrap());
        assert!(run(nft.arg(commands)).status.success(), "{commands}");
    };
    // As wg-quick(8) has it.
    nft("add table ip wg; add chain ip wg pre { type filter hook prerouting priority mangle; }; \
         add rule ip wg pre meta mark set ct mark");
    assert!(!run(world.curl(0, "").args(["--max-time", "1"])).status.success(), "the marks are gone");
    let (code, said) = check();
    assert_eq!(code, Some(1));
    for want in [
        "the policy rule \"priority 6000 fwmark 0x10000000/0xf0000000 lookup 100\" looks at bits of the mark",
        "a rule in chain pre of table ip wg sets bits of the mark",
        "meta mark set meta mark and 0x30000000 or VALUE",
    ] {
        assert!(said.contains(want), "{want} in: {said}");
    }
    nft("flush chain ip wg pre; add rule ip wg pre meta mark set meta mark and 0x30000000 or 7");
    ip(&world, "-4", "rule delete priority 6000\n");
    assert_eq!(check().0, Some(0), "{}", check().1);
    serves_within_a_second(&world, "both are mended");
}
