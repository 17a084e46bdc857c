//! `eqctl top` in a real terminal: what is on its screen while traffic runs, and what keys do.
//!
//! `PICTURES=DIR` keeps a picture of the screen, `top.svg`; tools/look-page does that.

use crate::page::{configuration, traffic};
use crate::world::{Running, World, eventually, program};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Lines and columns.
const SIZE: (u16, u16) = (24, 92);
/// Pixels of a character.
const CELL: (f32, f32) = (8.4, 18.0);

/// A program in a terminal of its own, which `script` makes.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    fn start(world: &World) -> Terminal {
        let words = world.eqctl_command(&["top"]);
        let words: Vec<_> =
            std::iter::once(words.get_program()).chain(words.get_args()).map(|word| word.to_str().unwrap()).collect();
        let (lines, columns) = SIZE;
        let shell = format!("stty rows {lines} cols {columns}; exec {}", words.join(" "));
        let mut command = Command::new(program("script"));
        command.args(["-qefc", &shell, "/dev/null"]).env("TERM", "xterm-256color").env("SHELL", "/bin/sh");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(lines, columns, 0)));
        let (mut output, shown) = (child.stdout.take().unwrap(), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().process(&bytes[..len]);
            }
        });
        Terminal { keys: child.stdin.take().unwrap(), child, screen }
    }

    fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    fn until(&self, what: &str, holds: impl Fn(&str) -> bool) {
        eventually(&format!("{what} on the screen"), || holds(&self.text()));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Draws a screen.
fn picture(screen: &vt100::Screen) -> String {
    let (lines, columns) = screen.size();
    let (width, height) = CELL;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {:.0}\" font-family=\"ui-monospace, 'DejaVu Sans Mono', \
         Menlo, Consolas, monospace\" font-size=\"14\">\n<title>eqctl top</title>\n<rect width=\"100%\" height=\"100%\" rx=\"6\" \
         fill=\"#14171c\"/>\n<g transform=\"translate(12 12)\">\n",
        f32::from(columns) * width + 24.0,
        f32::from(lines) * height + 24.0,
    );
    for line in 0..lines {
        let style = |column: u16| {
            screen.cell(line, column).map(|cell| (cell.inverse(), cell.bold(), cell.dim(), cell.underline()))
        };
        let mut first = 0;
        while first < columns {
            let end = (first..columns).find(|column| style(*column) != style(first)).unwrap_or(columns);
            let cell = |column: u16| match screen.cell(line, column).map(vt100::Cell::contents) {
                None | Some("") => " ".to_owned(),
                Some(text) => text.to_owned(),
            };
            let text: String = (first..end).map(cell).collect();
            run(&mut svg, style(first).unwrap(), (line, first), &text);
            first = end;
        }
    }
    svg + "</g>\n</svg>\n"
}

/// Draws characters of one style.
fn run(
    svg: &mut String,
    (inverse, bold, dim, underline): (bool, bool, bool, bool),
    (line, column): (u16, u16),
    text: &str,
) {
    let (width, height) = CELL;
    let cells = text.chars().count() as f32;
    let (x, y) = (f32::from(column) * width, f32::from(line) * height);
    if inverse {
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height}\" fill=\"#c9d1d9\"/>",
            cells * width
        );
    }
    let kept = text.trim_end();
    if kept.is_empty() {
        return;
    }
    let color = if inverse {
        "#14171c"
    } else if dim {
        "#8b949e"
    } else {
        "#e6edf3"
    };
    let weight = if bold { " font-weight=\"bold\"" } else { "" };
    let line_below = if underline { " text-decoration=\"underline\"" } else { "" };
    let escaped = kept.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{:.1}\" textLength=\"{:.1}\" xml:space=\"preserve\" fill=\"{color}\"{weight}{line_below}>{escaped}</text>",
        y + height - 5.0,
        kept.chars().count() as f32 * width,
    );
}

fn look(world: &World, nginx: &mut Vec<Running>) {
    let dir = std::env::var_os("PICTURES").map(PathBuf::from);
    let mut terminal = Terminal::start(world);
    terminal.until("the servers", |text| text.contains("web/server1") && text.contains("2 SERVERS"));
    terminal.until("rates", |text| text.contains("bit/s") && text.contains("▁"));
    nginx.pop().unwrap().kill();
    terminal.until("a server that is down", |text| {
        text.lines().any(|line| line.starts_with("web/server3") && line.contains("down"))
    });
    terminal.until("drops by reason", |text| text.contains("rule-drop"));
    if dir.is_some() {
        std::thread::sleep(Duration::from_secs(20)); // for curves worth a picture
    }
    let drawn = picture(terminal.screen.lock().unwrap().screen());
    assert!(drawn.contains(">rule-drop") && drawn.ends_with("</svg>\n"), "{drawn}");
    if let Some(dir) = dir {
        std::fs::write(dir.join("top.svg"), drawn).unwrap();
    }
    terminal.press("?");
    terminal.until("the help", |text| text.contains("explain the selected flow"));
    terminal.press("q");
    terminal.press("3e");
    terminal.until("an explanation", |text| text.contains("outcome") && text.contains("forward"));
    terminal.press("qq"); // closes the explanation, and ends it
    eventually("its end", || terminal.child.try_wait().unwrap().is_some());
    assert!(terminal.child.wait().unwrap().success());
    assert!(!terminal.text().contains("web/server1"), "the screen is as before");
}

#[test]
fn top_is_watched_and_asked_in_a_terminal() {
    let world = World::new("terminal");
    let mut nginx = world.nginx();
    let _gateway = world.start(&configuration(&world));
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| traffic(&world, &ends));
        let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| look(&world, &mut nginx)));
        ends.store(true, Ordering::Relaxed);
        traffic.join().unwrap();
        seen.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}
