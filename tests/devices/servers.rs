//! Real servers in the servers' namespaces, and the faults that they can have.
//!
//! It must not know the gateway.

use crate::world::{Running, World, eventually, program, run};
use equipoise::gateway::netns::Namespace;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

/// The nginx of server NUMBER. Files in its directory determine `/health`: `sick` fails it, `hang` never responds,
/// `trickle` sends a byte per second, `slow` hands it to a server behind it; otherwise the file `health` is the
/// response.
const NGINX: &str = "daemon off; master_process off; error_log stderr error; pid nginx.pid;
events { worker_connections 1024; }
http {
    access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server {
        listen 8080 backlog=1024; listen [::]:8080 backlog=1024; root .;
        location / { return 200 \"NUMBER\\n\"; }
        location /big { limit_rate 50k; }
        location = /health {
            if (-f $document_root/sick) { return 500; }
            if (-f $document_root/hang) { proxy_pass http://127.0.0.1:9001; }
            if (-f $document_root/trickle) { limit_rate 1; }
            if (-f $document_root/slow) { proxy_pass http://127.0.0.1:9002; }
        }
    }
}
";

/// A query for the A record of `who.test`; the last byte of the reply is the server's number.
pub const WHO: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03who\x04test\x00\x00\x01\x00\x01";

/// What a healthy nginx returns for `/health`.
pub const WELL: &str = "all is well\n";

impl World {
    /// Starts an nginx on each server, port 8080, both families, that responds with the server's number.
    pub fn nginx(&self) -> Vec<Running> {
        (1..=self.servers.len()).map(|n| self.nginx_on(n)).collect()
    }

    /// Starts the nginx of one server, which may have died before.
    pub fn nginx_on(&self, n: usize) -> Running {
        let running = self.nginx_in(&self.servers[n - 1], n);
        for family in [0, 1] {
            self.reachable(&self.servers[n - 1], Self::server_address(n, family), 8080);
        }
        running
    }

    /// Starts an nginx anywhere, which has this number among all.
    pub fn nginx_in(&self, namespace: &Namespace, n: usize) -> Running {
        let dir = self.nginx_dir(n);
        if !dir.exists() {
            std::fs::create_dir(&dir).unwrap();
            std::fs::write(dir.join("nginx.conf"), NGINX.replace("NUMBER", &n.to_string())).unwrap();
            std::fs::write(dir.join("big"), vec![b'x'; 1 << 20]).unwrap();
            std::fs::write(dir.join("health"), WELL).unwrap();
        }
        let prefix = format!("{}/", dir.display());
        let mut command = namespace.command(program("nginx").to_str().unwrap());
        Running::start(command.args(["-p", &prefix, "-c", "nginx.conf", "-e", "stderr"]))
    }

    /// The directory of a server's nginx.
    pub fn nginx_dir(&self, n: usize) -> PathBuf {
        self.dir.path().join(format!("nginx{n}"))
    }

    /// Starts a dnsmasq on each server that resolves `who.test` to 192.0.2.N, N being the server's number.
    pub fn dnsmasq(&self) -> Vec<Running> {
        (1..=self.servers.len()).map(|n| self.dnsmasq_on(n, n as u8)).collect()
    }

    /// Starts the dnsmasq of one server, which may have died before.
    pub fn dnsmasq_on(&self, n: usize, answer: u8) -> Running {
        let mut command = self.servers[n - 1].command(program("dnsmasq").to_str().unwrap());
        let answer = format!("--address=/who.test/192.0.2.{answer}");
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file="]);
        let running = Running::start(command.args(["--user=root", "--log-facility=/dev/null", &answer]));
        for family in [0, 1] {
            let at = SocketAddr::new(Self::server_address(n, family), 53);
            let socket = self.servers[n - 1].run(|| UdpSocket::bind((at.ip(), 0))).unwrap().unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            eventually(&format!("server{n}'s dnsmasq to answer"), || {
                socket.send_to(WHO, at).unwrap();
                socket.recv_from(&mut [0; 512]).is_ok()
            });
        }
        running
    }

    /// Makes a server deaf to what these nftables rules match, in addition to what it is already deaf to.
    pub fn deafen(&self, n: usize, rules: &[&str]) {
        let mut commands = vec![
            "add table inet deaf".to_owned(),
            "add chain inet deaf input { type filter hook input priority 0; }".to_owned(),
        ];
        commands.extend(rules.iter().map(|rule| format!("add rule inet deaf input {rule}")));
        self.nft(n, &commands.join("; "));
    }

    /// Makes a deaf server hear everything again.
    pub fn mend(&self, n: usize) {
        self.nft(n, "delete table inet deaf");
    }

    fn nft(&self, n: usize, commands: &str) {
        let mut nft = self.servers[n - 1].command(program("nft").to_str().unwrap());
        let output = run(nft.arg(commands));
        assert!(output.status.success(), "nft {commands}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Rules for [`World::deafen`]: everything that clients and monitors send. Neighbour discovery still works.
pub const ALL: [&str; 3] =
    ["meta l4proto { tcp, udp } drop", "icmp type echo-request drop", "icmpv6 type echo-request drop"];
/// Rules for [`World::deafen`]: echo requests only.
pub const PINGS: [&str; 2] = [ALL[1], ALL[2]];
