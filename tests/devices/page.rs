//! The page in a real browser: what it shows of a gateway with traffic, a server that fails and packets that are dropped;
//! searching, filtering, changing by mouse and keyboard; and what a screen reader has of it.
//!
//! `PICTURES=DIR` keeps the pictures, in both widths and schemes; tools/look-page does that.

use crate::browser::Browser;
use crate::world::{Lines, Running, SERVICE, World, run};
use crate::{Service, WEB};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const AT: &str = "127.0.0.1:9480";
const URL: &str = "http://127.0.0.1:9480/";

pub fn configuration(world: &World) -> String {
    let rule = "[[rule]]\nname = \"no-chargen\"\naction = \"drop\"\nprotocol = \"udp\"\nports = 19\n";
    let pool = "monitor = [{ name = \"page\", type = \"http\", path = \"/health\", interval = \"300ms\", timeout = \"200ms\", \
                fall = 2 }]";
    let echo: Service = ("echo", "7/udp", 2, 7777);
    let idle: Service = ("idle", "81/tcp", 1, 8080);
    let mut text = world.probing(WEB, Lines { pool, ..Lines::default() });
    text += &world
        .configuration("", &[echo, idle])
        .split_once("[[service]]")
        .map(|(_, rest)| format!("[[service]]{rest}"))
        .unwrap();
    format!("{text}{rule}[http]\nlisten = \"{AT}\"\n")
}

/// Traffic: connections, conversations, and datagrams that a rule drops.
pub fn traffic(world: &World, ends: &AtomicBool) {
    let echo = world.servers[0].run(|| UdpSocket::bind((World::server_address(1, 0), 7777))).unwrap().unwrap();
    echo.set_nonblocking(true).unwrap();
    let client = world.client.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    let mut bytes = [0; 2048];
    let mut round = 0_usize;
    while !ends.load(Ordering::Relaxed) {
        round += 1;
        for _ in 0..3 + round % 40 / 4 {
            let _ = client.send_to(&[b'x'; 900], (SERVICE[0], 7));
        }
        for _ in 0..round % 7 {
            let _ = client.send_to(b"x", (SERVICE[0], 19));
        }
        while let Ok((len, from)) = echo.recv_from(&mut bytes) {
            let _ = echo.send_to(&bytes[..len], from);
        }
        if round.is_multiple_of(4) {
            let _ = run(world.curl(round / 4 % 2, "").args(["--max-time", "2", "-o", "/dev/null"]));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Takes pictures in both widths and schemes, if they are wanted, and checks that nothing is wider than the window.
fn pictures(browser: &mut Browser, name: &str) {
    let dir = std::env::var_os("PICTURES").map(PathBuf::from);
    for (width, dark) in [(1440, false), (1440, true), (390, false), (390, true)] {
        browser.resize(width, dark);
        let wide = browser.eval("document.documentElement.scrollWidth");
        assert!(wide.as_u64().is_some_and(|wide| wide <= u64::from(width)), "{wide} pixels at {width}");
        if let Some(dir) = &dir {
            let scheme = if dark { "dark" } else { "light" };
            browser.pictures(&dir.join(format!("{name}-{width}-{scheme}")));
        }
    }
    browser.resize(1440, false);
}

fn row(server: &str) -> String {
    format!("[...document.querySelectorAll('#servers tbody tr')].find((tr) => tr.textContent.includes('{server}'))")
}

fn says(server: &str, words: &str) -> String {
    format!("Boolean({}?.textContent.includes('{words}'))", row(server))
}

fn servers_change_by_mouse_and_keyboard(world: &World, browser: &mut Browser) {
    // Escape leaves everything as it is; a wrong token is refused; the right one drains.
    browser.click("#servers button[aria-label='Drain web/server1']");
    browser.until("the question", "document.querySelector('#change').open");
    browser.press("Escape");
    browser.until("no question", "!document.querySelector('#change').open");
    browser.click("#servers button[aria-label='Drain web/server1']");
    browser.write("0123456789abcdef");
    browser.press("Enter");
    browser.until("a refusal", "document.querySelector('#change-error').textContent.includes('not the token')");
    assert_eq!(world.server_row(1).admin, equipoise::balance::Admin::Enabled);
    pictures(browser, "change");
    browser.eval("document.querySelector('#token').value = ''; document.querySelector('#token').focus()");
    let token = String::from_utf8(world.eqctl_raw(&["token"]).stdout).unwrap();
    browser.write(token.trim());
    browser.click("#change-do");
    browser.until("what was done", "document.querySelector('#said').textContent.includes('web/server1')");
    browser.until("the drained server", &says("web/server1", "drain"));
    assert_eq!(world.server_row(1).admin, equipoise::balance::Admin::Draining);
    let noted = "[...document.querySelectorAll('#history li')].some((li) => /uid 0.*draining/s.test(li.textContent))";
    browser.until("who changed what", noted);
    // By keyboard, and without the token again.
    browser.eval("document.querySelector(\"#servers button[aria-label='Enable web/server1']\").focus()");
    browser.press("Enter");
    browser.until(
        "the question",
        "document.querySelector('#change').open && document.querySelector('#token-part').hidden",
    );
    browser.press("Enter");
    browser
        .until("the server back", &format!("!document.querySelector('#change').open && {}", says("web/server1", "up")));
    assert_eq!(world.server_row(1).admin, equipoise::balance::Admin::Enabled);
}

#[test]
fn an_operator_sees_searches_and_changes_in_a_browser() {
    let world = World::new("page");
    let mut nginx: Vec<Running> = world.nginx();
    let gateway = world.start(&configuration(&world));
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| traffic(&world, &ends));
        let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| look(&world, &mut nginx, gateway)));
        ends.store(true, Ordering::Relaxed);
        traffic.join().unwrap();
        seen.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn look(world: &World, nginx: &mut Vec<Running>, gateway: Running) {
    let mut browser = Browser::start(world);
    browser.resize(1440, false);
    browser.open(URL);
    browser.until("the servers", &says("web/server1", "up"));
    browser.until("that it is live", "document.querySelector('#live').className === 'live good'");
    browser.until(
        "that nothing needs attention",
        "document.querySelector('#attention').textContent.includes('Nothing needs attention')",
    );
    pictures(&mut browser, "calm");
    nginx.pop().unwrap().kill();
    browser.until("the server that is down", &says("web/server3", "down"));
    let reason = "/is down.*(refused|in a row)/.test(document.querySelector('#attention').textContent)";
    browser.until("since when and why it is down", reason);
    browser.until("drops by reason", "document.querySelector('#drops').textContent.includes('rule-drop')");
    browser
        .until("what the reason means", "document.querySelector('#drops').textContent.includes('dropped by a rule')");
    browser.until("a curve", "/L/.test(document.querySelector('#packets-plot .line').getAttribute('d'))");
    if std::env::var_os("PICTURES").is_some() {
        std::thread::sleep(Duration::from_secs(60)); // for curves worth a picture
    }
    pictures(&mut browser, "busy");

    searches_by_keyboard(&mut browser);
    browser.eval("document.querySelector('#servers-filter').focus()");
    browser.write("server3");
    browser.until("one row", "document.querySelectorAll('#servers tbody tr').length === 1");
    browser
        .eval("const f = document.querySelector('#servers-filter'); f.value = ''; f.dispatchEvent(new Event('input'))");
    servers_change_by_mouse_and_keyboard(world, &mut browser);
    browser.complaints.retain(|complaint| !complaint.contains("status of 401"));
    is_spoken(&mut browser);
    assert!(browser.complaints.is_empty(), "{:#?}", browser.complaints);
    assert!(gateway.terminate().success());
    browser.until("that nobody answers", "document.querySelector('#live').textContent.includes('no answer for')");
}

fn searches_by_keyboard(browser: &mut Browser) {
    browser.press("/");
    browser.write("198.51.100.2");
    browser.press("Enter");
    browser.until("the explanation", "document.querySelector('#explained').textContent.includes('A new flow to web')");
    browser.until("its flows", "document.querySelector('#explained').textContent.includes('flow ')");
    browser.until("why not the other", "document.querySelector('#explained').textContent.includes('down')");
    pictures(browser, "explained");
    browser.click("#explained-close");
    browser.press("Escape");
    browser.eval("document.activeElement.blur()");
    browser.press("/");
    browser.eval("document.querySelector('#client').value = ''");
    browser.write("nonsense");
    browser.press("Enter");
    browser.until("what is wrong", "document.querySelector('#explained .error')?.textContent.includes('client: ')");
    browser.click("#explained-close");
    // Bad requests are errors in the browser's own log too.
    browser.complaints.retain(|complaint| !complaint.contains("status of 400"));
}

/// A screen reader has names for everything, and headings.
fn is_spoken(browser: &mut Browser) {
    let spoken = browser.spoken();
    let unnamed: Vec<_> = spoken
        .iter()
        .filter(|(role, name)| {
            ["button", "link", "searchbox", "textbox", "spinbutton", "image", "heading", "table"]
                .contains(&role.as_str())
                && name.is_empty()
        })
        .collect();
    assert!(unnamed.is_empty(), "a screen reader has no name for {unnamed:?}");
    for name in ["Services", "Servers", "Dropped per second", "Room", "What happened"] {
        assert!(spoken.iter().any(|(role, own)| role == "heading" && own == name), "no heading {name}");
    }
    assert!(
        spoken.iter().any(|(role, name)| role == "image" && name.starts_with("Packets per second: forwarded")),
        "{spoken:?}"
    );
}

/// 10,000 servers beside the three of the page's own service.
fn many(world: &World) -> String {
    let servers: String = (0..10_000)
        .map(|n| format!("{{ name = \"s{n}\", address = \"10.77.{}.{}\" }},\n", n / 250, n % 250 + 1))
        .collect();
    configuration(world)
        + &format!(
            "[[service]]\nname = \"many\"\nlisten = \"{}:82/tcp\"\npool = \"many\"\n\
             [[pool]]\nname = \"many\"\nserver = [\n{servers}]\n",
            SERVICE[0]
        )
}

#[test]
fn of_ten_thousand_servers_the_page_shows_a_hundred_with_what_is_wrong_first_and_finds_the_rest() {
    let world = World::new("page-many");
    let _nginx: Vec<Running> = world.nginx();
    let _gateway = world.start(&many(&world));
    world.change("server drain many/s9876");
    let mut browser = Browser::start(&world);
    browser.resize(390, false);
    browser.open(URL);
    let rows = "document.querySelectorAll('#servers tbody tr').length";
    browser.until("a portion", &format!("{rows} === 100"));
    let first = "document.querySelector('#servers tbody tr').textContent";
    browser.until("what is wrong", &format!("{first}.includes('many/s9876') && {first}.includes('drained')"));
    let count = browser.eval("document.querySelector('#servers-count').textContent");
    assert!(count.as_str().is_some_and(|count| count.contains(" of 10,00")), "{count}");
    browser.click("#servers-more");
    browser.until("another portion", &format!("{rows} === 200"));
    browser.eval("document.querySelector('#servers-filter').focus()");
    browser.write("s4321");
    browser.until("the one that is looked for", &format!("{rows} === 1 && {first}.includes('10.77.17.72')"));
    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
}
