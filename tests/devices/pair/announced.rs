//! BIRD announces the service addresses while the gateway is active, and withdraws them when it stands by or dies.

use super::{role, sync};
use crate::state::TALK;
use crate::world::{Running, World, eventually, program, run};
use equipoise::gateway::netns::Namespace;
use std::process::Stdio;

/// A routing daemon with its control socket.
struct Bird {
    _running: Running,
    socket: String,
}

impl Bird {
    fn start(world: &World, at: &Namespace, name: &str, configuration: &str) -> Bird {
        let file = world.dir.path().join(format!("{name}.conf"));
        std::fs::write(&file, configuration).unwrap();
        let socket = world.dir.path().join(format!("{name}.ctl")).display().to_string();
        let mut command = at.command(program("bird").to_str().unwrap());
        command.args(["-f", "-s", &socket, "-c"]).arg(&file).stdout(Stdio::null()).stderr(Stdio::inherit());
        let bird = Bird { _running: Running::start(&mut command), socket };
        eventually(&format!("{name} to answer"), || bird.ask("show status").contains("Router ID"));
        bird
    }

    fn ask(&self, words: &str) -> String {
        let mut command = std::process::Command::new(program("birdc"));
        let output = run(command.args(["-r", "-s", &self.socket]).args(words.split(' ')));
        String::from_utf8(output.stdout).unwrap()
    }

    fn knows(&self, address: &str) -> bool {
        self.ask("show route").lines().any(|line| line.starts_with(address))
    }
}

#[test]
fn bird_announces_what_the_active_gateway_has_and_withdraws_it_at_its_death() {
    let world = World::new("pair-bird");
    let text = world.configuration("", &[TALK]) + &sync(1, world.dir.path(), "routes = 'when-active'");
    let gateway = world.start(&text);
    let mut print = std::process::Command::new(env!("CARGO_BIN_EXE_equipoise"));
    print.args(["print", "bird", "--router-id", "198.51.100.1", "--config"]).arg(world.file());
    let printed = run(&mut print);
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let own = String::from_utf8(printed.stdout).unwrap()
        + "protocol bfd { interface \"*\" { interval 50 ms; }; }\n\
           protocol bgp to_router {\n  local 198.51.100.1 as 65001;\n  neighbor 198.51.100.2 as 65000;\n  bfd;\n\
           ipv4 { import none; export where source = RTS_INHERIT && ifname = \"equipoise0\"; next hop self; };\n}\n";
    let _speaker = Bird::start(&world, &world.gateway, "gateway", &own);
    let router = Bird::start(
        &world,
        &world.client,
        "router",
        "router id 198.51.100.2;\nprotocol device { scan time 1; }\nprotocol bfd { interface \"*\" { interval 50 ms; }; }\n\
         protocol bgp to_gateway {\n  local 198.51.100.2 as 65000;\n  neighbor 198.51.100.1 as 65001;\n  bfd;\n\
         ipv4 { import all; export none; };\n}\n",
    );
    eventually("the session", || router.ask("show protocols to_gateway").contains("Established"));
    eventually("BFD", || router.ask("show bfd sessions").contains("Up"));
    assert!(!router.knows("192.0.2.80/32"), "{}", router.ask("show route"));
    world.change("role active");
    eventually("the announcement", || router.knows("192.0.2.80/32"));
    world.change("role standby");
    role(&world, "learning");
    eventually("the withdrawal", || !router.knows("192.0.2.80/32"));
    world.change("role active");
    eventually("the announcement anew", || router.knows("192.0.2.80/32"));
    gateway.kill();
    eventually("the withdrawal at its death", || !router.knows("192.0.2.80/32"));
    assert!(router.ask("show protocols to_gateway").contains("Established"), "the speaker itself is well");
}
