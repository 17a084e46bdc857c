//! A gateway that cannot run says what is missing and how to fix it, and changes nothing.

use crate::WEB;
use crate::world::{World, program, run};
use std::os::unix::fs::PermissionsExt;

/// Starts a gateway that must fail; the message must contain each of `wants`.
fn refuses(world: &World, configuration: &str, wrap: &[&str], wants: &[&str]) {
    let before = world.system();
    let (code, said) = world.start_in_vain(configuration, wrap);
    assert_eq!(code, Some(1), "{said}");
    for want in wants {
        assert!(said.contains(want), "want {want:?} in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(world.system(), before, "{said}");
    assert!(!world.socket().exists(), "{said}");
}

#[test]
fn a_missing_capability_is_named() {
    let world = World::new("cap");
    let setpriv = program("setpriv");
    let wrap = [setpriv.to_str().unwrap(), "--bounding-set=-net_admin", "--inh-caps=-net_admin"];
    let wants = ["the capability CAP_NET_ADMIN is missing", "to fix it", "setcap cap_net_admin+ep"];
    refuses(&world, &world.configuration("", &[WEB]), &wrap, &wants);
}

#[test]
fn kernel_parameters_that_are_wrong_come_with_their_commands() {
    let world = World::new("sysctl");
    let configuration = world.configuration("", &[WEB]);
    let cases = [
        ("net/ipv4/ip_forward", "0", "1", "net.ipv4.ip_forward is 0", "sysctl -w net.ipv4.ip_forward=1"),
        (
            "net/ipv6/conf/all/forwarding",
            "0",
            "1",
            "net.ipv6.conf.all.forwarding is 0",
            "sysctl -w net.ipv6.conf.all.forwarding=1",
        ),
    ];
    for (name, bad, _, what, fix) in cases {
        world.gateway.sysctl(name, bad).unwrap();
        refuses(&world, &configuration, &[], &[what, fix]);
    }
    for (name, _, good, ..) in cases {
        world.gateway.sysctl(name, good).unwrap();
    }
    assert!(world.start(&configuration).terminate().success(), "with all of them fixed it runs");
}

#[test]
fn translated_packets_pass_a_strict_reverse_path_check() {
    let world = World::new("rpfilter");
    for conf in ["default", "all"] {
        world.gateway.sysctl(&format!("net/ipv4/conf/{conf}/rp_filter"), "1").unwrap();
    }
    let _nginx = world.nginx();
    let _gateway = world.start(&world.configuration("", &[WEB]));
    let output = run(&mut world.curl(0, ""));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_missing_tun_device_is_named() {
    let world = World::new("notun");
    let unshare = program("unshare");
    let hide = "mount -t tmpfs none /dev/net && exec \"$@\"";
    let wrap = [unshare.to_str().unwrap(), "--mount", "sh", "-c", hide, "sh"];
    let wants = ["/dev/net/tun cannot be opened", "to fix it", "modprobe tun"];
    refuses(&world, &world.configuration("", &[WEB]), &wrap, &wants);
}

#[test]
fn a_tun_device_that_an_ordinary_user_may_not_open_is_named_with_its_mode() {
    let world = World::new("tunmode");
    // The user must reach its configuration, and may do what a gateway needs.
    std::fs::set_permissions(world.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let [unshare, setpriv] = ["unshare", "setpriv"].map(program);
    let user = format!(
        "mount -t tmpfs none /dev/net && mknod -m 0600 /dev/net/tun c 10 200 && exec {} --reuid=65534 --regid=65534 \
         --clear-groups --inh-caps=+net_admin --ambient-caps=+net_admin \"$@\"",
        setpriv.display()
    );
    let wrap = [unshare.to_str().unwrap(), "--mount", "sh", "-c", &user, "sh"];
    let wants = ["/dev/net/tun cannot be opened: Permission denied", "to fix it: as root: chmod 0666 /dev/net/tun"];
    refuses(&world, &world.configuration("", &[WEB]), &wrap, &wants);
}

#[test]
fn everything_missing_is_reported_at_once() {
    let world = World::new("both");
    world.gateway.sysctl("net/ipv4/ip_forward", "0").unwrap();
    let setpriv = program("setpriv");
    let wrap = [setpriv.to_str().unwrap(), "--bounding-set=-net_admin"];
    let wants = ["CAP_NET_ADMIN", "net.ipv4.ip_forward is 0"];
    refuses(&world, &world.configuration("", &[WEB]), &wrap, &wants);
}

#[test]
fn a_broken_configuration_is_shown_where_it_is_broken() {
    let world = World::new("broken");
    let good = world.configuration("", &[WEB]);
    for (from, to, wants) in [
        ("pool = \"web\"", "pool = \"wbe\"", &["wbe", "equipoise.toml:"][..]),
        ("[flows]", "[flows]\nmaximum = 3", &["maximum", "max"]),
        (":80/tcp", ":80/tpc", &["80/tpc", "tcp"]),
        ("[gateway]", "[gateway", &["equipoise.toml:1"]),
    ] {
        assert!(good.contains(from), "{from}");
        refuses(&world, &good.replace(from, to), &[], wants);
    }
}
