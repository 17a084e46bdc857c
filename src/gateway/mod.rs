//! The live gateway: TUN device, event loop, netlink, control socket, signals.
//!
//! It holds no policy; the engine decides what happens to a packet. Everything works in the network namespace of the
//! thread that opens the gateway.

#![allow(clippy::disallowed_methods, reason = "the live gateway reads the clock for the engine")]

mod batch;
pub mod bpf;
mod carrying;
pub mod confine;
mod control_server;
mod error;
mod event_loop;
mod follower;
mod http;
pub mod huge_pages;
mod lapses;
pub mod log_queue;
mod marking;
mod nat_of_others;
pub mod netlink;
#[cfg(any(test, feature = "demo"))]
pub mod netns;
pub mod notify;
mod output;
mod pair;
pub mod paths;
mod peer;
pub mod preflight;
mod private_socket;
mod queues;
mod refusals;
pub mod reload;
mod restraint;
pub mod setup;
pub mod sources;
pub mod state;
pub mod sysctl;
pub mod takeover;
pub mod tun;
pub mod wanted;
mod watch;

#[cfg(test)]
mod testing;

pub use control_server::MOST_CONNECTIONS;
pub use error::GatewayError;
pub use event_loop::{Stopper, TakenSignals};
pub use pair::read_key as pair_key;
pub use private_socket::SocketError;

use crate::config::Settings;
use crate::config::changes::File;
use crate::control::{About, Ledger};
use crate::engine::Engine;
use crate::sources::{Found, SourceSettings};
use carrying::Carrying;
use control_server::ControlServer;
use event_loop::{Equipment, EventLoop};
use follower::Follower;
use marking::Marking;
use nat_of_others::NatOfOthers;
use notify::Notifier;
use pair::Pair;
use queues::Opener;
use setup::{Installed, Select};
use state::Earlier;
use std::path::PathBuf;
use std::sync::Arc;
use takeover::Giver;
use watch::Keeper;

/// A gateway that is set up; packets queue in its device until it runs.
///
/// Dropping it removes what it set up: rules and routes first, then the device.
pub struct Gateway {
    installed: Option<Installed>,
    event_loop: EventLoop,
    /// Directories with files of servers.
    directories: Vec<PathBuf>,
    /// TCP ports of resolvers.
    resolver_ports: Vec<u16>,
}

impl Gateway {
    /// Sets up device, addresses, routes, rules and control socket; undoes all of it on failure.
    ///
    /// The seed is used as it is: a predictable one lets clients predict how the table hashes.
    pub fn open(settings: &Settings) -> Result<Gateway, GatewayError> {
        Gateway::open_with(Ledger::new(None, settings.clone()))
    }

    /// The same with the file that the settings come from: changes at run time are made on top of it, and those of an
    /// earlier gateway are kept as far as the file does not speak against them.
    pub fn open_configured(settings: Settings, file: File) -> Result<Gateway, GatewayError> {
        Gateway::open_with(Ledger::new(Some(file), settings))
    }

    fn open_with(mut ledger: Ledger) -> Result<Gateway, GatewayError> {
        let settings = Arc::clone(ledger.in_force());
        let problems = preflight::check(&settings);
        if !problems.is_empty() {
            return Err(GatewayError::Preflight(problems));
        }
        // Before the process gives up the right to start programs.
        let doubts = [preflight::doubts(&settings), preflight::firewalls(&settings)].concat();
        doubts.iter().for_each(|doubt| log::warn!("{doubt}"));
        // First, because it fails if another gateway is running, whose rules are not leftovers.
        let control = ControlServer::bind(&settings.gateway.control_socket)?;
        let giver = Giver::bind(&settings.gateway)?;
        // What operators changed comes before all that is made of the settings.
        let (file, interval) = (&settings.gateway.state_file, settings.gateway.state_interval);
        let mut earlier = file.as_ref().map(|file| Earlier::open(file, event_loop::BEGIN)).transpose()?;
        let found = find_servers(&mut ledger, |sources, found| {
            earlier.iter_mut().for_each(|earlier| earlier.add_servers(sources, found));
        });
        let kept = earlier.as_mut().and_then(|earlier| earlier.load_changes(&mut ledger, event_loop::BEGIN));
        let settings = &*Arc::clone(ledger.in_force());
        let cleaned = setup::clean_leftovers(settings, false)?;
        if cleaned > 0 {
            log::warn!("removed {cleaned} rules and routes left behind by a killed run");
        }
        let name = &settings.gateway.device;
        // Before anything is installed, so that no loss is missed.
        let mut keeper = Keeper::new().map_err(setup::SetupError::from)?;
        let mut opener = Opener::new(settings);
        let queues = opener.open()?;
        log::info!(
            "{name}: open, MTU {} bytes, queues: {}, offload: {}",
            settings.gateway.mtu,
            queues.len(),
            queues[0].offload()
        );
        let mut engine = Engine::try_new(settings)?;
        huge_pages::advise(engine.memory());
        let keeping = earlier.map(|earlier| earlier.load(interval, &mut engine, event_loop::BEGIN));
        let keeping = keeping.transpose()?.flatten();
        if kept.is_some() {
            ledger.started(&mut engine, event_loop::BEGIN);
        }
        let pair = Pair::open(settings, None, &mut engine, event_loop::BEGIN)?;
        let about = About { queues: queues.len(), ..About::new(settings, event_loop::BEGIN, std::process::id()) };
        let follower = Follower::new(settings, name).map_err(setup::SetupError::from)?;
        let mut marking =
            Marking::open(settings, name).inspect_err(|error| log::warn!("{}", preflight::without_marks(error))).ok();
        if let Some(marking) = &mut marking {
            // Before replies can arrive.
            marking.store_all(&engine);
        }
        let carrying = carrying_for(settings);
        let select = if marking.is_some() { Select::Marks } else { Select::Addresses };
        let installed = Installed::install_selecting(settings, name, follower.interfaces(), select)?;
        keeper.follow(&installed);
        let mut nat = NatOfOthers::watch(name, settings.gateway.route_table);
        nat.settle();
        keeper.guard(nat);
        let clock = std::time::Instant::now();
        let programs = (marking, carrying);
        let equipment = Equipment { opener, queues, control, giver, follower, keeper, programs, keeping, pair, clock };
        Gateway::assemble(engine, (about, ledger, found), equipment, installed)
    }

    fn assemble(
        engine: Engine,
        (about, ledger, found): (About, Ledger, Found),
        equipment: Equipment,
        installed: Installed,
    ) -> Result<Gateway, GatewayError> {
        let settings = Arc::clone(ledger.in_force());
        let event_loop = EventLoop::new(engine, (about, ledger, found), equipment)?;
        log::info!(
            "services: {}, servers: {}, room for {} flows; control socket {}",
            settings.services.len(),
            settings.servers.len(),
            settings.table.max_flows,
            settings.gateway.control_socket.display()
        );
        Ok(Gateway {
            installed: Some(installed),
            event_loop,
            directories: sources::directories(&settings.sources),
            resolver_ports: sources::ports(&settings),
        })
    }

    /// Does what the end of a gateway does that has left everything to the service manager, if there is no next start.
    /// Returns the number of rules, routes and proxy entries removed. No gateway may be running.
    pub fn stopped(settings: &Settings) -> Result<usize, GatewayError> {
        let follower = Follower::new(settings, &settings.gateway.device).map_err(setup::SetupError::from)?;
        let interfaces = follower.interfaces();
        let mut installed = Installed::adopt(
            (settings, settings),
            &settings.gateway.device,
            interfaces,
            Select::Marks,
            (&[], &[], true),
        )?;
        installed.own();
        if settings.flows_outlive() {
            installed.leave_fallbacks();
        }
        let count = installed.parts().len();
        installed.remove()?;
        Ok(count)
    }

    /// Removes what a gateway with these settings has left behind, fallback routes included; returns the number of rules,
    /// routes and proxy entries. Fails, without removing anything, if it is still running.
    pub fn clean_up(settings: &Settings) -> Result<usize, GatewayError> {
        // Held until the end: no gateway starts meanwhile.
        let _control = ControlServer::bind(&settings.gateway.control_socket)?;
        Ok(setup::clean_leftovers(settings, true)?)
    }

    /// Returns a handle that stops [`Gateway::run`] from another thread.
    pub fn stopper(&self) -> Stopper {
        self.event_loop.stopper()
    }

    /// Makes it possible to reload the configuration from a file: by SIGHUP, if [`Gateway::handle_signals`] was called, and
    /// by the control socket. To be called before [`Gateway::confine`]. Servers from outside that are found later are used
    /// only then, and with [`Gateway::open_configured`].
    pub fn reload_from(&mut self, file: &std::path::Path) -> Result<(), GatewayError> {
        let file = std::path::absolute(file).map_err(GatewayError::io("find the configuration file"))?;
        self.event_loop.reload_from(file)
    }

    /// Makes SIGINT and SIGTERM end [`Gateway::run`], and SIGHUP reload the configuration.
    pub fn handle_signals(&mut self, signals: TakenSignals) -> Result<(), GatewayError> {
        self.event_loop.handle_signals(signals)
    }

    /// Makes [`Gateway::run`] report to a service manager when it begins and ends, and that it is alive. To be called
    /// before [`Gateway::confine`].
    pub fn report_to(&mut self, manager: Notifier) {
        self.event_loop.report_to(manager);
    }

    /// Gives up every privilege that forwarding does not need, for the whole process; see [`confine`]. What the system
    /// does not support is logged.
    pub fn confine(&mut self) {
        self.event_loop.confine(&self.directories);
        let files = confine::Files::of_gateway(self.event_loop.control_socket());
        let files = files.with_sources(self.directories.clone(), self.resolver_ports.clone());
        let files = match self.event_loop.peer_port() {
            Some(port) => files.with_peer(port),
            None => files,
        };
        for missed in confine::process(&files) {
            log::warn!("{missed}");
        }
    }

    /// Moves packets until it is stopped; restores what is removed of what it set up.
    pub fn run(&mut self) -> Result<(), GatewayError> {
        self.event_loop.take_over(self.installed.as_mut())?;
        let ended = self.event_loop.run(self.installed.as_mut());
        if !self.event_loop.is_over() {
            self.event_loop.manager().stopping();
        }
        ended
    }

    /// Saves the state, if it is kept, and removes everything that was set up; the error says what could not be removed. If
    /// another gateway has taken over, or the service manager keeps all of it for the next start, it stays.
    pub fn close(mut self) -> Result<(), GatewayError> {
        if self.event_loop.is_over() {
            self.installed.take().into_iter().for_each(Installed::leave);
            let programs = self.event_loop.take_programs();
            drop(self);
            std::thread::sleep(BEFORE_DETACHING);
            drop(programs);
            return Ok(());
        }
        let is_kept = self.installed.as_ref().is_some_and(|installed| self.event_loop.leave_to_manager(installed));
        let is_saved = self.event_loop.save_last();
        let has_peer = self.event_loop.peer_port().is_some();
        if is_kept {
            self.installed.take().into_iter().for_each(Installed::leave);
            return Ok(());
        }
        if let Some(installed) = self.installed.as_mut().filter(|_| is_saved || has_peer) {
            installed.leave_fallbacks();
        }
        self.installed.take().map_or(Ok(()), |installed| Ok(installed.remove()?))
    }
}

/// How long the programs of a gateway stay attached after another one has taken over. To detach one holds the lock of the
/// kernel's network configuration for 8 to 36 ms, and the new gateway asks about that first of all, between packets.
const BEFORE_DETACHING: std::time::Duration = std::time::Duration::from_millis(500);

/// Returns what has the kernel carry flows, if the settings ask for it and the system is able to.
fn carrying_for(settings: &Settings) -> Option<Carrying> {
    if !settings.gateway.shortcut {
        return None;
    }
    match Carrying::open(&settings.gateway.device) {
        Ok(carrying) => {
            log::info!("shortcut: the kernel carries established TCP flows, at most {}", bpf::shortcut::MOST_FLOWS);
            Some(carrying)
        }
        Err(error) => {
            log::warn!("{}", preflight::without_shortcut(&error));
            None
        }
    }
}

/// Returns the servers from outside that are known at the start, and puts them into the ledger: those of files, which the
/// settings have already, and for other sources those that `add` adds, the last list of an earlier gateway.
fn find_servers(ledger: &mut Ledger, add: impl FnOnce(&[SourceSettings], &mut Found)) -> Found {
    let Some(file) = ledger.file() else { return Found::new() };
    let sources = &file.settings().sources;
    let (mut found, _) = sources::from_files(sources);
    let of_files = found.len();
    add(sources, &mut found);
    if found.len() > of_files {
        match file.with_servers(&found) {
            Ok((file, _)) => {
                let settings = file.settings().clone().with_seed(ledger.in_force().seed);
                *ledger = Ledger::new(Some(file), settings);
            }
            Err(error) => log::warn!("servers of an earlier gateway cannot be used: {error}"),
        }
    }
    found
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(installed) = self.installed.take()
            && let Err(error) = installed.remove()
        {
            log::error!("{}: {error}", self.event_loop.device_name());
        }
    }
}
