use super::app::{App, List, Mode, Wish};
use super::data::{Data, Look};
use super::view;
use equipoise::control::{FlowRow, Request, ServerRow, ServiceRow, Status, Totals};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyModifiers};
use serde_json::{Value, json};

fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn status() -> Status {
    of(json!({
        "protocol": 6, "version": "0.1.0", "pid": 77, "uptime_ms": 3_720_000, "device": "equipoise0", "mtu": 1500,
        "offload": true, "services": 2, "servers": 3, "flows": 12_345, "max_flows": 262_144, "half_open": 45,
        "max_half_open": 1_000_000, "pressures": [], "repairs": 0, "last_repair": null, "troubles": [],
    }))
}

fn service(name: &str, n: u64) -> ServiceRow {
    of(json!({
        "service": name, "enabled": true, "listen": ["192.0.2.80:80/tcp"], "pool": "farm", "algorithm": "round-robin",
        "flows": 100 * n, "flows_total": 1_000 * n, "packets_in": 10 * n, "bytes_in": 100_000 * n, "packets_out": 20 * n,
        "bytes_out": 2_000_000 * n,
    }))
}

fn server(name: &str, n: u64, health: &str) -> ServerRow {
    of(json!({
        "pool": "farm", "server": name, "addresses": ["10.0.0.1"], "port": 80, "weight": n, "weight_now": n as f32,
        "admin": "enabled", "health": health, "times_down": 0, "times_up": 0, "maintenance": false, "flows": 100 * n,
        "flows_total": 1_000 * n, "packets_in": 10 * n, "bytes_in": 100_000 * n, "packets_out": 20 * n,
        "bytes_out": 2_000_000 * n,
    }))
}

fn flow(index: u32, bytes: u64, age_ms: u64) -> FlowRow {
    of(json!({
        "id": format!("{index}.0"), "protocol": "tcp", "client": format!("198.51.100.{index}:40000"),
        "listen": "192.0.2.80:80", "service": "web", "pool": "farm", "server": "web-1", "server_address": "10.0.0.1:80",
        "picked_by": "algorithm", "state": "established", "age_ms": age_ms, "idle_ms": 10, "expires_in_ms": 7_000_000,
        "packets_in": 5, "bytes_in": bytes / 10, "packets_out": 9, "bytes_out": bytes - bytes / 10,
    }))
}

fn totals(n: u64) -> Totals {
    let dropped = [("no-service", 1_000 * n), ("no-server", n)];
    let dropped: Vec<Value> = dropped.iter().map(|(kind, count)| json!({"kind": kind, "count": count})).collect();
    of(json!({
        "engine": {
            "packets_in": 1_200_000 * n, "bytes_in": 150_000_000 * n, "translated": 1_198_999 * n, "foreign": 0,
            "consumed": [], "dropped": dropped, "transmitted": 0, "flows": 12_345, "max_flows": 262_144, "half_open": 45,
            "max_half_open": 1_000_000, "gave_way": [], "flows_opened": 2_000 * n, "flows_ended": [], "states": [],
        },
        "device": {},
    }))
}

fn look(n: u64) -> Look {
    Look {
        status: status(),
        services: vec![service("web", n), service("web-tls", 2 * n)],
        servers: vec![server("web-1", n, "up"), server("web-2", 3 * n, "up"), server("web-3", 2, "down")],
        flows: vec![flow(7, 5_000_000 * n, 60_000), flow(9, 1_000_000 * n * n, 3_720_000)],
        totals: totals(n),
    }
}

/// Two looks, a second apart.
fn data() -> Data {
    let mut data = Data::default();
    data.take(look(1), None);
    data.take(look(2), Some(1.0));
    data.take(look(3), Some(1.0));
    data
}

fn screen(app: &App, data: &Data, (width, height): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| view::draw(frame, app, data)).unwrap();
    let buffer = terminal.backend().buffer();
    let lines = buffer.content().chunks(usize::from(width));
    let text = lines.map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned() + "\n");
    text.collect()
}

fn press(app: &mut App, data: &Data, keys: &str) -> Wish {
    let mut wish = Wish::Nothing;
    for c in keys.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            '\u{1b}' => KeyCode::Esc,
            '↓' => KeyCode::Down,
            '↑' => KeyCode::Up,
            c => KeyCode::Char(c),
        };
        wish = app.key(code, KeyModifiers::NONE, data);
        app.follow(data);
    }
    wish
}

/// Compares with a file in `snapshots`, or writes it there with `BLESS=1`.
fn snapshot(name: &str, got: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/eqctl/top/snapshots").join(name);
    if std::env::var_os("BLESS").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, got).unwrap();
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(want == got, "{} (BLESS=1 rewrites it) is now:\n{got}", path.display());
}

#[test]
fn eighty_columns_by_twenty_four_lines_show_everything() {
    let (app, data) = (App::default(), data());
    let got = screen(&app, &data, (80, 24));
    snapshot("lists.txt", &got);
    snapshot("before-the-first-answer.txt", &screen(&App::default(), &Data::default(), (80, 24)));
    snapshot("wide.txt", &screen(&app, &data, (140, 40)));
    for size in [(1, 1), (20, 5), (80, 4), (300, 100)] {
        screen(&app, &data, size);
    }
}

#[test]
fn keys_choose_lists_rows_and_orders() {
    let (mut app, data) = (App::default(), data());
    assert_eq!(app.servers(&data)[0].name(), "farm/web-1");
    press(&mut app, &data, "ss");
    assert_eq!((app.order(List::Servers), app.servers(&data)[0].name().as_str()), ("rate", "farm/web-2"));
    press(&mut app, &data, "3");
    assert_eq!(app.flows(&data)[0].row.client.to_string(), "198.51.100.7:40000", "10 MB/s is more than 5");
    press(&mut app, &data, "sss");
    assert_eq!((app.order(List::Flows), app.flows(&data)[0].row.age_ms), ("age", 3_720_000));
    press(&mut app, &data, "↓↓↓↓");
    assert_eq!(app.selected(List::Flows), 1, "the last one");
    assert_eq!(
        press(&mut app, &data, "e"),
        Wish::Send(Box::new(Request::ExplainFlow { flow: "7.0".parse().unwrap() }))
    );
    assert_eq!(press(&mut app, &data, "x"), Wish::Nothing);
    snapshot("confirm.txt", &screen(&app, &data, (80, 24)));
    assert_eq!(press(&mut app, &data, "y"), Wish::Send(Box::new(Request::Kill { flow: "7.0".parse().unwrap() })));
    assert_eq!(press(&mut app, &data, "xn"), Wish::Nothing, "a no is a no");
    assert_eq!(press(&mut app, &data, "q"), Wish::End);
}

#[test]
fn a_server_is_drained_after_a_yes_and_enabled_again() {
    let (mut app, mut data) = (App::default(), data());
    assert_eq!(press(&mut app, &data, "↓d"), Wish::Nothing);
    let Wish::Send(request) = press(&mut app, &data, "y") else { panic!("nothing was sent") };
    let Request::Set { object, values, .. } = *request else { panic!("{request:?}") };
    assert_eq!((object.name.as_str(), values["state"].as_deref()), ("farm/web-2", Some("\"draining\"")));
    app.said(Ok("server farm/web-2: state \"enabled\" -> \"draining\"; it has 900 flows left\n".into()));
    assert!(screen(&app, &data, (80, 24)).contains("it has 900 flows left"));
    data.servers[1].admin = equipoise::control::Admin::Draining;
    press(&mut app, &data, "d");
    assert!(matches!(&app.mode, Mode::Confirm(what, _) if what == "enable server farm/web-2"), "{:?}", app.mode);
    app.key(KeyCode::Esc, KeyModifiers::NONE, &data);
    press(&mut app, &data, "4d");
    assert!(screen(&app, &data, (80, 24)).contains("select a server first"));
}

#[test]
fn flows_are_filtered_by_words_or_by_what_is_selected() {
    let (mut app, data) = (App::default(), data());
    assert_eq!(press(&mut app, &data, "/prt 80\n"), Wish::Nothing);
    snapshot("wrong-filter.txt", &screen(&app, &data, (80, 24)));
    for _ in 0..6 {
        app.key(KeyCode::Backspace, KeyModifiers::NONE, &data);
    }
    assert_eq!(press(&mut app, &data, "port 80\n"), Wish::Refresh);
    assert_eq!(app.filter().map(ToString::to_string).as_deref(), Some("port 80"));
    assert!(screen(&app, &data, (80, 24)).contains("  client (port 80)  "));
    assert_eq!(press(&mut app, &data, "\u{1b}"), Wish::Refresh);
    assert_eq!(app.filter(), None);
    assert_eq!(press(&mut app, &data, "2\n"), Wish::Refresh);
    assert_eq!(app.filter().map(ToString::to_string).as_deref(), Some("server farm/web-1"));
    assert_eq!(app.list, List::Flows);
}

#[test]
fn a_long_answer_covers_the_lists_and_a_lost_gateway_is_said() {
    let (mut app, data) = (App::default(), data());
    app.said(Ok("packet  TCP\noutcome forward\n".into()));
    assert!(screen(&app, &data, (80, 24)).contains("\noutcome forward\n"));
    press(&mut app, &data, "\u{1b}?");
    snapshot("help.txt", &screen(&app, &data, (80, 24)));
    press(&mut app, &data, "\u{1b}");
    app.failed("no gateway answers; trying again\nmore");
    assert!(screen(&app, &data, (80, 24)).ends_with("no gateway answers; trying again\n"));
    app.answered();
    press(&mut app, &data, "p");
    assert!(app.is_paused() && screen(&app, &data, (80, 24)).contains("PAUSED"));
}
