//! The second gateway, with cables of its own to client and servers, and one to the first gateway.

use super::sync;
use crate::state::TALK;
use crate::world::{Running, SERVICE, World, eventually, ip, run};
use equipoise::control::{SyncRow, Totals};
use equipoise::gateway::netns::Namespace;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Output, Stdio};

pub struct Second {
    pub gateway: Namespace,
    pub dir: tempfile::TempDir,
}

/// What keepalived would read of a gateway with files in this folder.
pub fn track(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("track")).unwrap().trim_end().to_owned()
}

impl Second {
    pub fn new(world: &World, test: &str) -> Second {
        let gateway = Namespace::new(&format!("dev-{test}-second")).unwrap();
        gateway.forward().unwrap();
        for conf in ["all", "default"] {
            gateway.sysctl(&format!("net/ipv4/conf/{conf}/rp_filter"), "0").unwrap();
        }
        let cable = |other: &Namespace, device: &str, v4: &str, v6: &str| {
            for conf in ["all", "default"] {
                other.sysctl(&format!("net/ipv4/conf/{conf}/rp_filter"), "0").unwrap();
            }
            gateway.cable(device, other, "eth1").unwrap();
            ip(&gateway, &format!("address add {v4}.1/24 dev {device}"));
            ip(&gateway, &format!("address add {v6}::1/64 dev {device} nodad"));
            ip(other, &format!("address add {v4}.2/24 dev eth1"));
            ip(other, &format!("address add {v6}::2/64 dev eth1 nodad"));
        };
        cable(&world.client, "client", "198.51.101", "2001:db8:d");
        ip(&gateway, "route add 198.51.100.2/32 via 198.51.101.2");
        ip(&gateway, "-6 route add 2001:db8:c::2/128 via 2001:db8:d::2");
        for (n, server) in world.servers.iter().enumerate().map(|(n, server)| (n + 1, server)) {
            cable(server, &format!("server{n}"), &format!("10.98.{n}"), &format!("fd98:0:0:{n}"));
            ip(&gateway, &format!("route add 10.99.{n}.2/32 via 10.98.{n}.2"));
            ip(&gateway, &format!("-6 route add fd99:0:0:{n}::2/128 via fd98:0:0:{n}::2"));
        }
        world.gateway.cable("sync", &gateway, "sync").unwrap();
        ip(&world.gateway, "address add 10.255.0.1/24 dev sync");
        ip(&gateway, "address add 10.255.0.2/24 dev sync");
        Second { gateway, dir: tempfile::tempdir().unwrap() }
    }

    pub fn configuration(&self, world: &World, more: &str) -> String {
        let socket = self.dir.path().join("control.sock");
        let text = world.configuration("", &[TALK]);
        let own = text.replace(&format!("{:?}", world.socket()), &format!("{socket:?}"));
        own + &sync(2, self.dir.path(), more)
    }

    pub fn start(&self, configuration: &str) -> Running {
        let file = self.dir.path().join("equipoise.toml");
        std::fs::write(&file, configuration).unwrap();
        let mut command = self.gateway.command(env!("CARGO_BIN_EXE_equipoise"));
        command.arg("run").arg("--config").arg(file).env_remove("RUST_LOG");
        let log = File::create(self.dir.path().join("stderr")).unwrap();
        let mut running = Running::start(command.stdout(Stdio::null()).stderr(log));
        eventually("the second gateway", || {
            assert!(running.ended().is_none(), "{}", self.log());
            self.eqctl(&["status"]).status.success()
        });
        running
    }

    pub fn eqctl(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eqctl"));
        run(command.arg("--socket").arg(self.dir.path().join("control.sock")).args(args))
    }

    pub fn change(&self, words: &str) {
        let output = self.eqctl(&words.split(' ').collect::<Vec<_>>());
        assert!(output.status.success(), "eqctl {words}: {}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn role(&self) -> String {
        String::from_utf8(self.eqctl(&["role"]).stdout).unwrap().trim().to_owned()
    }

    pub fn sync(&self) -> SyncRow {
        serde_json::from_slice(&self.eqctl(&["sync", "--json"]).stdout).unwrap()
    }

    pub fn totals(&self) -> Totals {
        serde_json::from_slice(&self.eqctl(&["counters", "--json"]).stdout).unwrap()
    }

    pub fn track(&self) -> String {
        track(self.dir.path())
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("stderr")).unwrap()
    }

    /// Routes clients and servers through this gateway.
    pub fn lead(&self, world: &World) {
        self.route(world, ["198.51.101.1", "2001:db8:d::1"], ["10.98", "fd98"], "eth1");
    }

    /// Routes them through the first one again.
    pub fn leave(&self, world: &World) {
        self.route(world, ["198.51.100.1", "2001:db8:c::1"], ["10.99", "fd99"], "eth0");
    }

    fn route(&self, world: &World, [v4, v6]: [&str; 2], nets: [&str; 2], device: &str) {
        for (n, server) in world.servers.iter().enumerate().map(|(n, server)| (n + 1, server)) {
            ip(server, &format!("route replace default via {}.{n}.1 dev {device}", nets[0]));
            ip(server, &format!("-6 route replace default via {}:0:0:{n}::1 dev {device}", nets[1]));
        }
        ip(&world.client, &format!("route replace {} via {v4} dev {device} src 198.51.100.2", SERVICE[0]));
        ip(&world.client, &format!("-6 route replace {} via {v6} dev {device} src 2001:db8:c::2", SERVICE[1]));
    }
}
