//! A whole network in one command: namespaces, real servers, real clients, a real TUN device.
//!
//! ```text
//!   client ---- gateway ---- server1, server2, ...        a network namespace each, cables between
//!   (here)      (Gateway)    (HTTP/1.1, here too)
//! ```
//!
//! The gateway is that of `equipoise run`, started from a configuration text; what is shown of it comes through its
//! control socket. At the end the demo checks its own accounts and that nothing is left behind.

#![allow(clippy::disallowed_methods, reason = "real programs have a clock and wait")]

mod balancer;
mod books;
mod client;
mod drill;
mod options;
mod picture;
mod residue;
mod server;
mod tally;
mod world;

pub use options::{DemoError, DemoOptions};

use crate::balance::Health;
use crate::engine::{MonitorRow, ServerRow};
use crate::gateway::{netns, preflight};
use balancer::Balancer;
use books::Books;
use client::{Clients, Pace};
use drill::{Drill, Times};
use picture::{Picture, View};
use residue::{Before, Scratch};
use server::Server;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use world::World;

/// How often the gateway is queried and the picture drawn.
const TICK: Duration = Duration::from_millis(100);
/// How long each act of the drill lasts that has no end of its own.
const ACT: Duration = Duration::from_secs(1);
/// When a drill that does not finish is abandoned.
const LONGEST_DRILL: Duration = Duration::from_secs(40);

/// Runs the demo until its requests are done, its time is up, or Ctrl-C; prints to stdout.
///
/// To be called before the process starts any thread. The error says what is missing or what went wrong; in either
/// case nothing is left behind.
pub fn run(options: &DemoOptions) -> Result<(), DemoError> {
    options.check()?;
    netns::become_root_in_user_namespace().map_err(|e| DemoError::new("the demo cannot make its network", e))?;
    if let Some(problem) = preflight::tun_device() {
        return Err(DemoError::new("the demo cannot create its TUN device", problem));
    }
    let stop = on_signals()?;
    let before = Before::look();
    let scratch = Scratch::new()?;
    let played = play(options, &scratch, &stop);
    let directory = scratch.path().to_owned();
    drop(scratch);
    let books = played?;
    let left = before.left(&directory);
    say(&if options.json { books.json(&left) + "\n" } else { books.text(&left) });
    let mut wrong = books.wrong();
    wrong.extend(left.into_iter().map(|what| format!("left behind: {what}")));
    if !wrong.is_empty() {
        return Err(DemoError::new("the demo did not go as expected", wrong.join("\n  ")));
    }
    if stop.load(Ordering::Relaxed) && !options.forever {
        return Err(DemoError::Interrupted);
    }
    Ok(())
}

/// Prints, ignoring errors: a closed pipe is no reason to leave the network behind.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// A flag that SIGINT and the like raise. Every wait of the demo ends within seconds, so a second signal needs no
/// harder way out.
fn on_signals() -> Result<Arc<AtomicBool>, DemoError> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|e| DemoError::new("the demo cannot watch for signals", e))?;
    }
    Ok(stop)
}

fn play(options: &DemoOptions, scratch: &Scratch, stop: &Arc<AtomicBool>) -> Result<Books, DemoError> {
    let world = World::new(options.weights.len())?;
    let socket = scratch.path().join("control.sock");
    let file = scratch.path().join("demo.toml");
    let text = world::configuration(&options.weights, &socket);
    std::fs::write(&file, &text).map_err(|e| DemoError::new(format!("writing {}", file.display()), e))?;
    let settings = crate::config::parse(&text, &file.display().to_string())
        .map_err(|e| DemoError::new("the demo's own configuration is wrong", e))?;
    if !options.json {
        introduce(&world, &file, &text);
    }
    let servers: Vec<Server> = world.servers.iter().map(Server::start).collect::<Result<_, _>>()?;
    let mut balancer = Balancer::start(&world.gateway, settings, &socket)?;
    if options.forever && !options.json {
        say(&world.commands(&socket));
    }
    let started = Instant::now();
    let pace = if options.forever { Pace::Gentle } else { Pace::Requests(options.requests) };
    let clients = Clients::start(&world.client, options.clients, pace, servers.len(), stop)?;
    let watched = watch(options, &mut balancer, &clients, stop, started);
    let (tally, _) = clients.join();
    let elapsed = started.elapsed();
    // The last connections' closing packets are still in flight when their clients are done.
    std::thread::sleep(TICK);
    let seen = watched.and_then(|()| balancer.ask());
    let answered = servers.iter().map(Server::answered).collect();
    let mut stage = Stage { options, world: &world, servers, balancer, stop };
    let victim = options.victim().filter(|_| seen.is_ok() && tally.failed == 0 && !stop.load(Ordering::Relaxed));
    let drill = victim.map(|victim| stage.drill(victim)).transpose();
    let stopped = stage.balancer.stop();
    // Why the gateway ended is more informative than that it does not reply.
    stopped?;
    let (seen, drill) = (seen?, drill?.flatten());
    world.check_gateway_is_clean()?;
    stage.servers.into_iter().for_each(|server| drop(server.stop()));
    Ok(Books { options: options.clone(), tally, elapsed, answered, seen, drill })
}

/// The participants of the drill.
struct Stage<'a> {
    options: &'a DemoOptions,
    world: &'a World,
    servers: Vec<Server>,
    balancer: Balancer,
    stop: &'a Arc<AtomicBool>,
}

impl Stage<'_> {
    /// Stops a server in mid-traffic and restarts it; `None` if the demo was interrupted.
    fn drill(&mut self, victim: usize) -> Result<Option<Drill>, DemoError> {
        let clients =
            Clients::start(&self.world.client, self.options.clients, Pace::Drill, self.servers.len(), self.stop)?;
        let times = self.acts(victim, &clients);
        clients.stop();
        let (_, requests) = clients.join();
        let all: u32 = self.options.weights.iter().map(|weight| u32::from(*weight)).sum();
        let fair = f64::from(self.options.weights[victim]) / f64::from(all);
        let server = self.world.servers[victim].label().to_owned();
        Ok(times?.map(|times| Drill { server, times, requests, fair }))
    }

    fn acts(&mut self, victim: usize, clients: &Clients) -> Result<Option<Times>, DemoError> {
        let mut picture = Picture::new(&DemoOptions { forever: true, ..self.options.clone() });
        let began = Instant::now();
        let mut until = |stage: &mut Self, what: &str, done: &mut dyn FnMut(&ServerRow, &[MonitorRow]) -> bool| loop {
            let seen = stage.balancer.ask()?;
            let now = Instant::now();
            let (answered, failed) = clients.counts();
            picture.draw(&View { elapsed: began.elapsed(), seen: &seen, answered, failed }, false);
            let server = &seen.servers[victim];
            let monitors: Vec<_> = seen.monitors.iter().filter(|row| row.server == server.server).cloned().collect();
            if done(server, &monitors) || stage.stop.load(Ordering::Relaxed) {
                return Ok(now);
            }
            if began.elapsed() > LONGEST_DRILL {
                return Err(DemoError::new("the drill did not finish", format!("waited for {what}")));
            }
            std::thread::sleep(TICK / 4);
        };
        let wait = |span: Duration| {
            let end = Instant::now() + span;
            move |_: &ServerRow, _: &[MonitorRow]| Instant::now() >= end
        };
        until(self, "traffic", &mut wait(ACT))?;
        self.servers.remove(victim).stop();
        let stopped = Instant::now();
        // Both of its addresses must have left.
        let left = until(self, "the server to leave", &mut |_, all| all.iter().all(|row| row.state == Health::Down))?;
        until(self, "a pause", &mut wait(ACT))?;
        self.servers.insert(victim, Server::start(&self.world.servers[victim])?);
        let started = Instant::now();
        let back = until(self, "the server to come back", &mut |row, _| row.health == Health::Up)?;
        let whole = until(self, "its slow start", &mut |row, _| row.weight_now >= f32::from(row.weight))?;
        let end = until(self, "traffic", &mut wait(2 * ACT))?;
        Ok((!self.stop.load(Ordering::Relaxed)).then_some(Times { stopped, left, started, back, whole, end }))
    }
}

fn introduce(world: &World, file: &Path, text: &str) {
    let text: String = text.lines().map(|line| format!("    {line}").trim_end().to_owned() + "\n").collect();
    say(&format!("{}\n\nThe gateway runs from {}:\n\n{text}\n", world.describe(), file.display()));
}

/// Draws until the clients are done, the time is up or the demo is interrupted.
fn watch(
    options: &DemoOptions,
    balancer: &mut Balancer,
    clients: &Clients,
    stop: &AtomicBool,
    started: Instant,
) -> Result<(), DemoError> {
    let mut picture = Picture::new(options);
    let end = options.seconds.map(|s| started + Duration::from_secs(s));
    loop {
        let over = clients.done() || stop.load(Ordering::Relaxed) || end.is_some_and(|end| Instant::now() >= end);
        if over {
            clients.stop();
        }
        let seen = match balancer.ask() {
            Ok(seen) => seen,
            Err(e) => {
                clients.stop();
                return Err(e);
            }
        };
        let (answered, failed) = clients.counts();
        let view = View { elapsed: started.elapsed(), seen: &seen, answered, failed };
        picture.draw(&view, over);
        if over {
            return Ok(());
        }
        std::thread::sleep(TICK);
    }
}
