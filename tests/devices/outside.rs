//! Servers from outside: a real dnsmasq, and writers of files as consul-template and Kubernetes are.

use crate::world::{Lines, PATIENCE, Running, SERVICE, World, eventually, program, run};
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The service; its servers come from outside.
const WEB: crate::Service = ("web", "80/tcp", 0, 8080);
/// The resolver: in the namespace of server3.
const RESOLVER: usize = 3;

/// Starts a dnsmasq with these records on server3.
fn resolver(world: &World, records: &[String]) -> Running {
    let mut command = world.servers[RESOLVER - 1].command(program("dnsmasq").to_str().unwrap());
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file="]);
    command
        .args(["--user=root", "--log-facility=/dev/null", "--local-ttl=1", "--bind-interfaces", "--local=/example/"])
        .args(records);
    let running = Running::start(&mut command);
    let at = SocketAddr::new(World::server_address(RESOLVER, 0), 53);
    let socket = world.gateway.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    eventually("dnsmasq to answer", || {
        socket.send_to(crate::servers::WHO, at).unwrap();
        socket.recv_from(&mut [0; 512]).is_ok()
    });
    running
}

/// A server as the target of the service, with its addresses.
fn target(n: usize, priority: u16) -> [String; 2] {
    let [v4, v6] = [0, 1].map(|family| World::server_address(n, family));
    [
        format!("--srv-host=_web._tcp.example,s{n}.example,8080,{priority},1"),
        format!("--host-record=s{n}.example,{v4},{v6},1"),
    ]
}

fn by_dns(world: &World) -> String {
    let monitor = "[[pool.monitor]]\ntype = \"tcp\"\nports = [8080]\ninterval = \"200ms\"\n";
    let rest = format!("{monitor}[dns]\nservers = \"{}\"\nmin-ttl = \"1s\"\n", World::server_address(RESOLVER, 0));
    world.probing(WEB, Lines { pool: "servers-dns = \"_web._tcp.example\"", rest: &rest, ..Lines::default() })
}

fn names(world: &World) -> Vec<String> {
    world.server_rows().into_iter().filter(|row| !row.removed).map(|row| row.server).collect()
}

/// The numbers of the servers that answer a few requests.
fn answering(world: &World) -> Vec<String> {
    let body = |family| String::from_utf8(run(&mut world.curl(family, "")).stdout).unwrap().trim().to_owned();
    let mut all: Vec<String> = (0..6).map(|n| body(n % 2)).collect();
    all.sort();
    all.dedup();
    all
}

fn error(world: &World) -> Option<String> {
    world.sources().remove(0).error
}

#[test]
fn services_in_dns_come_change_and_go_and_stay_while_dns_is_down() {
    let world = World::new("srv");
    let _nginx = world.nginx();
    let _gateway = world.start(&by_dns(&world));
    eventually("an error that says why there are no servers", || {
        error(&world).is_some_and(|text| text.contains("no servers"))
    });
    assert!(names(&world).is_empty() && !run(&mut world.curl(0, "")).status.success());
    // The second is a backup.
    let dns = resolver(&world, &[target(1, 10), target(2, 20)].concat());
    eventually("two servers", || names(&world) == ["s1.example:8080", "s2.example:8080"]);
    eventually("the first server", || answering(&world) == ["1"]);
    // Two servers and two families; the monitors began with them.
    eventually("monitors", || {
        world.monitors().iter().filter(|row| row.state == equipoise::state::Health::Up).count() == 4
    });
    let source = world.sources().remove(0);
    assert_eq!((source.kind.as_str(), source.servers, source.error), ("dns-srv", 2, None));
    let mut download = Running::start(
        world
            .curl(0, "big")
            // 18 s at the 50 kB/s of the server.
            .args(["--range", "0-899999", "--max-time", "90", "-o", "/dev/null"])
            .stderr(Stdio::null()),
    );
    eventually("a download under way", || world.flows(&["--service", "web"]).iter().any(|row| row.bytes_out > 10_000));
    dns.kill();
    eventually("an error", || error(&world).is_some_and(|text| text.ends_with("the last 2 servers stay")));
    assert_eq!((names(&world).len(), answering(&world)), (2, vec!["1".to_owned()]));
    // The first is gone, and another one is there.
    let dns = resolver(&world, &[target(2, 10), target(3, 10)].concat());
    eventually("other servers", || names(&world) == ["s2.example:8080", "s3.example:8080"]);
    eventually("no error", || error(&world).is_none());
    eventually("the other servers", || answering(&world) == ["2", "3"]);
    assert!(download.wait("the end of the download from the removed server").success());
    dns.kill();
    assert_eq!(answering(&world), ["2", "3"]);
    let log = world.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("servers from _web._tcp.example")).collect();
    assert!(lines.len() <= 8, "each trouble is said once: {lines:?}");
}

#[test]
fn an_answer_that_is_too_long_for_a_datagram_comes_over_tcp() {
    let world = World::new("srvtcp");
    let _nginx = world.nginx_on(1);
    let address = World::server_address(1, 0);
    let many =
        (8080..8200).map(|port| format!("--srv-host=_web._tcp.example,a-rather-long-name-{port}.example,{port},1,1"));
    let hosts = (8080..8200).map(|port| format!("--host-record=a-rather-long-name-{port}.example,{address},1"));
    let _dns = resolver(&world, &many.chain(hosts).collect::<Vec<_>>());
    let _gateway = world.start(&by_dns(&world));
    // The right to connect to port 53, and nothing else, is left.
    eventually("all servers", || names(&world).len() == 120);
    assert_eq!(error(&world), None);
}

/// A list with these servers, the way that a template writes it.
fn list(servers: &[usize]) -> String {
    let lines = servers.iter().map(|n| {
        let [v4, v6] = [0, 1].map(|family| World::server_address(*n, family));
        format!("{v4}:8080 address=[{v6}]:8080 name=s{n}\n")
    });
    lines.collect()
}

/// Puts a list in the place of the file as consul-template does: written aside, then renamed.
fn replace(file: &Path, text: &str) {
    let aside = file.with_extension("tmp");
    fs::write(&aside, text).unwrap();
    fs::rename(aside, file).unwrap();
}

/// Puts a list in the place of the file as Kubernetes does: the link to the directory of all files is led elsewhere.
fn swap(dir: &Path, generation: usize, text: &str) {
    let data = format!("..generation-{generation}");
    fs::create_dir(dir.join(&data)).unwrap();
    fs::write(dir.join(&data).join("servers"), text).unwrap();
    symlink(&data, dir.join("..data_tmp")).unwrap();
    fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    if generation > 0 {
        fs::remove_dir_all(dir.join(format!("..generation-{}", generation - 1))).unwrap();
    }
}

/// Requests, one connection each, one after the other, as long as a test changes servers.
fn requests(world: &World, count: usize) -> Command {
    let mut command = world.client.command(program("curl").to_str().unwrap());
    command.args(["-s", "--max-time", "20", "-H", "Connection: close", "-o", "/dev/null", "-w", "%{http_code}\n"]);
    command.arg(format!("http://{}/[1-{count}]", SERVICE[0])).stdin(Stdio::null());
    command
}

#[test]
fn no_request_fails_while_a_list_is_replaced_over_and_over() {
    let world = World::new("list");
    let _nginx = world.nginx();
    let dir = world.dir.path().join("volume");
    fs::create_dir(&dir).unwrap();
    let (plain, linked) = (world.dir.path().join("web.servers"), dir.join("servers"));
    symlink("..data/servers", &linked).unwrap();
    for (place, file) in [plain, linked].iter().enumerate() {
        let mut generation = 0;
        let mut write = |servers: &[usize]| {
            if place == 0 {
                replace(file, &list(servers))
            } else {
                swap(&dir, generation, &list(servers))
            }
            generation += 1;
        };
        write(&[1, 2, 3]);
        let pool = format!("servers-file = {file:?}");
        let gateway = world.start(&world.probing(WEB, Lines { pool: &pool, ..Lines::default() }));
        assert_eq!(names(&world), ["s1", "s2", "s3"], "at the start");
        let output = world.dir.path().join("codes");
        let mut client = Running::start(requests(&world, 2000).stdout(fs::File::create(&output).unwrap()));
        let start = Instant::now();
        let (mut changes, mut seen) = (0, 0);
        while client.ended().is_none() && start.elapsed() < 3 * PATIENCE {
            let servers: &[usize] = [&[1, 2][..], &[2, 3], &[1, 2, 3], &[3, 1]][changes % 4];
            write(servers);
            changes += 1;
            let want: Vec<String> = servers.iter().map(|n| format!("s{n}")).collect();
            eventually(&format!("the servers {want:?}"), || {
                let mut names = names(&world);
                names.sort();
                let mut want = want.clone();
                want.sort();
                names == want
            });
            seen += 1;
        }
        let codes = fs::read_to_string(&output).unwrap();
        let good = codes.lines().filter(|line| *line == "200").count();
        assert_eq!((good, codes.lines().count()), (2000, 2000), "{changes} changes");
        assert!(seen >= 3, "only {seen} changes while requests ran");
        println!("{good} requests, {changes} changes of the list");
        // A wrong list, and one that is gone, change nothing.
        write(&[1, 2]);
        eventually("two servers", || names(&world).len() == 2);
        fs::write(file, "10.99.1.2:8080\nnonsense\n").unwrap();
        eventually("the line of the mistake", || error(&world).is_some_and(|text| text.contains("line 2")));
        fs::remove_file(file).unwrap();
        eventually("a missing file", || error(&world).is_some_and(|text| text.contains("no such file")));
        assert_eq!(names(&world).len(), 2);
        gateway.terminate();
    }
}

#[test]
fn a_state_in_the_list_drains_a_server_and_the_list_survives_a_reload() {
    let world = World::new("liststate");
    let _nginx = world.nginx();
    let file = world.dir.path().join("web.servers");
    replace(&file, &list(&[1, 2]));
    let pool = format!("servers-file = {file:?}");
    let configuration = world.probing(WEB, Lines { pool: &pool, ..Lines::default() });
    let _gateway = world.start(&configuration);
    assert_eq!(answering(&world), ["1", "2"]);
    replace(&file, &list(&[1, 2]).replacen('\n', " state=draining\n", 1));
    eventually("a draining server", || world.server_rows()[0].admin == equipoise::balance::Admin::Draining);
    assert_eq!(answering(&world), ["2"]);
    // A reload of the file of the gateway keeps the servers from outside.
    fs::write(world.file(), configuration.replace("max = 4096", "max = 4096\nrate = 100000")).unwrap();
    let output = world.eqctl_raw(&["reload"]);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success() && said.contains("rate") && !said.contains("server web/"), "{said}");
    assert_eq!((names(&world).len(), answering(&world)), (2, vec!["2".to_owned()]));
    // An operator's change stays until the list says something else for that very key.
    world.change("server weight web/s2 5");
    let weight = || world.server_rows().iter().find(|row| row.server == "s2").map(|row| row.weight);
    replace(&file, &list(&[1, 2, 3]));
    eventually("a third server", || names(&world) == ["s1", "s2", "s3"]);
    assert_eq!(weight(), Some(5));
    replace(&file, &list(&[1, 2, 3]).replace("name=s2", "name=s2 weight=7"));
    eventually("the weight of the list", || weight() == Some(7));
    // One that cannot be used does not keep the others away.
    replace(&file, &(list(&[1, 3]) + &format!("{}:80\n127.0.0.1:80\n", SERVICE[0])));
    eventually("the other servers", || names(&world) == ["s1", "s3"]);
    eventually("what is left out", || world.sources()[0].left_out.len() == 2);
    assert_eq!(answering(&world), ["1", "3"]);
}

#[test]
fn flows_to_servers_from_dns_and_their_changes_outlive_a_gateway_that_starts_without_dns() {
    let world = World::new("srvkept");
    let _nginx = world.nginx();
    let state = world.dir.path().join("state");
    let control = format!("control-socket = {:?}", world.socket());
    let text = by_dns(&world).replace(&control, &format!("{control}\nstate-file = {state:?}"));
    assert!(text.contains("state-file"));
    let dns = resolver(&world, &[target(1, 10), target(2, 10)].concat());
    let gateway = world.start(&text);
    eventually("two servers", || answering(&world) == ["1", "2"]);
    let mut download = Running::start(
        world
            .curl(0, "big")
            // 18 s at the 50 kB/s of the server.
            .args(["--range", "0-899999", "--max-time", "90", "-o", "/dev/null"])
            .stderr(Stdio::null()),
    );
    eventually("a download under way", || world.flows(&["--service", "web"]).iter().any(|row| row.bytes_out > 10_000));
    world.change("server drain web/s1.example:8080");
    world.change("server weight web/s2.example:8080 5");
    // Without a name server, and for a while without the first of them.
    dns.kill();
    assert!(gateway.terminate().success());
    let gateway = world.start(&text);
    assert_eq!(names(&world), ["s1.example:8080", "s2.example:8080"]);
    assert!(world.log().contains("2 servers from outside, until there is a newer list"), "{}", world.log());
    assert!(download.ended().is_none() && world.totals().engine.flows > 0, "{}", world.log());
    eventually("the second server only", || answering(&world) == ["2"]);
    eventually("an error", || error(&world).is_some_and(|text| text.ends_with("the last 2 servers stay")));
    let dns = resolver(&world, &target(2, 10));
    eventually("one server", || names(&world) == ["s2.example:8080"]);
    let changes = world.said("changes").0;
    assert!(changes.contains("server web/s1.example:8080") && changes.contains("waits"), "{changes}");
    // Orders go on, and what is saved names what it cannot have.
    assert_eq!(world.said("pool set web passive.failures=3").1, Some(0));
    let (saved, code) = world.said("changes save");
    assert!(code == Some(0) && saved.contains("failures = 3"), "{saved}");
    for line in [
        "not in the file: state of server web/s1.example:8080 (\"draining\")",
        "not in the file: weight of server web/s2.example:8080 (5): the server comes from outside",
    ] {
        assert!(saved.contains(line), "want {line:?} in: {saved}");
    }
    dns.kill();
    let _dns = resolver(&world, &[target(1, 10), target(2, 10)].concat());
    eventually("both again", || names(&world).len() == 2);
    assert_eq!(world.server_rows()[0].admin, equipoise::balance::Admin::Draining, "maintenance is not over");
    assert_eq!(answering(&world), ["2"]);
    assert!(download.wait("the end of the download").success());
    assert!(gateway.terminate().success());
}

#[test]
fn a_reload_says_which_file_of_servers_cannot_be_read_before_a_restart() {
    let world = World::new("listplace");
    let _nginx = world.nginx();
    let text =
        |file: &Path| world.probing(WEB, Lines { pool: &format!("servers-file = {file:?}"), ..Lines::default() });
    let other = tempfile::tempdir().unwrap();
    let files = [world.dir.path().join("web.servers"), other.path().join("web.servers")];
    for (file, servers) in files.iter().zip([&[1][..], &[2, 3]]) {
        fs::write(file, list(servers)).unwrap();
    }
    let gateway = world.start(&text(&files[0]));
    fs::write(world.file(), text(&files[1])).unwrap();
    let why = format!("and {} had none: restart it", other.path().display());
    let (said, code) = world.said("reload");
    assert!(code == Some(0) && said.contains(&why), "{said}");
    eventually("the reason", || error(&world).is_some_and(|text| text.contains(&why)));
    assert_eq!(answering(&world), ["1"]);
    assert!(gateway.terminate().success());
    let gateway = world.start(&text(&files[1]));
    eventually("the others", || answering(&world) == ["2", "3"]);
    // Permissions are another matter.
    assert!(gateway.terminate().success());
}

#[test]
fn whatever_takes_the_place_of_a_list_the_last_servers_stay() {
    let world = World::new("listodd");
    let _nginx = world.nginx();
    let file = world.dir.path().join("web.servers");
    fs::write(&file, list(&[1, 2])).unwrap();
    let pool = format!("servers-file = {file:?}");
    let gateway = world.start(&world.probing(WEB, Lines { pool: &pool, ..Lines::default() }));
    assert_eq!(names(&world), ["s1", "s2"]);
    let aside = world.dir.path().join("aside");
    let huge = || {
        let file = fs::File::create(&aside).unwrap();
        file.set_len(1 << 40).unwrap();
    };
    let fifo = || assert!(run(Command::new("mkfifo").arg(&aside)).status.success());
    let many = || fs::write(&aside, "10.99.1.2:1\n".repeat(300_000)).unwrap();
    let too_many = || {
        let lines: Vec<String> = (0..16_385).map(|n| format!("10.{}.{}.1:80\n", n >> 8, n & 255)).collect();
        fs::write(&aside, lines.concat()).unwrap();
    };
    let half = || fs::write(&aside, &list(&[1, 2])[..30]).unwrap();
    let deep = || fs::write(&aside, "[".repeat(1 << 20)).unwrap();
    let endless = || symlink("/dev/zero", &aside).unwrap();
    let nothing = || symlink("nowhere", &aside).unwrap();
    let itself = || symlink(file.file_name().unwrap(), &aside).unwrap();
    let odd: [(&str, &dyn Fn(), &str); 9] = [
        ("huge", &huge, "longer than 4 MiB"),
        ("pipe", &fifo, "not a regular file"),
        ("the same over and over", &many, "line 2: a second server"),
        ("too many", &too_many, "more than 16384 servers"),
        ("half", &half, "line 1"),
        ("deep", &deep, "line 1"),
        ("device", &endless, ""),
        ("link to nothing", &nothing, "no such file"),
        ("link to itself", &itself, "cannot read it"),
    ];
    for (what, make, want) in odd {
        make();
        fs::rename(&aside, &file).unwrap();
        eventually(what, || error(&world).is_some_and(|text| text.contains(want)));
        assert_eq!(names(&world), ["s1", "s2"], "{what}");
        replace(&file, &list(&[1, 2]));
        eventually(&format!("{what} is over"), || error(&world).is_none());
    }
    // A directory can only take the place of nothing.
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    eventually("a directory", || error(&world).is_some_and(|text| text.contains("not a regular file")));
    fs::remove_dir(&file).unwrap();
    replace(&file, &list(&[2]));
    eventually("the last one", || names(&world) == ["s2"]);
    assert!(gateway.terminate().success());
}
