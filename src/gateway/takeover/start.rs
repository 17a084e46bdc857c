//! A gateway that begins with what it takes over from another one.

use super::super::carrying_for;
use super::super::control_server::ControlServer;
use super::super::event_loop::{BEGIN, Equipment};
use super::super::follower::Follower;
use super::super::marking::Marking;
use super::super::nat_of_others::NatOfOthers;
use super::super::pair::{Announce, Pair};
use super::super::private_socket::PrivateSocket;
use super::super::queues::Opener;
use super::super::setup::{Installed, Select, SetupError};
use super::super::state::Keeping;
use super::super::tun::Tun;
use super::super::watch::Keeper;
use super::super::{Gateway, GatewayError, find_servers, huge_pages, preflight};
use super::{Giver, Taken, Taker};
use crate::config::Settings;
use crate::config::changes::File;
use crate::control::{About, Ledger};
use crate::engine::{Engine, Removed};
use crate::sources::Found;
use crate::time::Instant;
use std::sync::Arc;

impl Gateway {
    /// Sets up a gateway that takes the place of the one that hands over: until [`Gateway::run`] that one forwards packets,
    /// and if anything fails before, it carries on.
    pub fn take_over(settings: Settings, file: File, mut taker: Taker) -> Result<Gateway, GatewayError> {
        log::info!("taking over from {}", taker.offer().who());
        let mut by_file = Ledger::new(Some(file), settings);
        let found = find_servers(&mut by_file, |sources, found| taker.add_servers(sources, found));
        let ledger = Ledger::new(by_file.file().cloned(), (**by_file.in_force()).clone());
        match Gateway::take_all(ledger, found, &mut taker) {
            Ok(mut gateway) => {
                gateway.event_loop.take_over_from(taker, by_file);
                Ok(gateway)
            }
            Err(error) => {
                taker.give_up(&error.to_string());
                Err(error)
            }
        }
    }

    fn take_all(mut ledger: Ledger, found: Found, taker: &mut Taker) -> Result<Gateway, GatewayError> {
        let clock = std::time::Instant::now();
        let now = || -> Instant { BEGIN + clock.elapsed() };
        // Before anything is made of the settings.
        taker.load_changes(&mut ledger, now());
        let settings = &*Arc::clone(ledger.in_force());
        let problems = preflight::check_beside(settings);
        if !problems.is_empty() {
            return Err(GatewayError::Preflight(problems));
        }
        let failed = GatewayError::io("use what the running gateway passes on");
        let Some(Taken { listeners, made, queues, keys }) = taker.take() else {
            return Err(failed(std::io::ErrorKind::NotFound.into()));
        };
        let name = &settings.gateway.device;
        let queues = queues.into_iter().map(Tun::from_passed).collect::<Result<Vec<_>, _>>()?;
        if queues.iter().any(|queue| queue.name() != name || queue.has_header() != settings.gateway.offload) {
            return Err(GatewayError::Takeover(format!("the running gateway passes on another device than {name}")));
        }
        log::info!("{name}: taken over, queues: {}, offload: {}", queues.len(), queues[0].offload());
        let path = &settings.gateway.control_socket;
        let (control, giver) = match listeners {
            Some([control, takeover]) => {
                let control = PrivateSocket::from_passed(control, path, made);
                let takeover = PrivateSocket::from_passed(takeover, &super::socket(path), false);
                (ControlServer::new(control), Giver::new(takeover, &settings.gateway)?)
            }
            None => (ControlServer::bind(path)?, Giver::bind(&settings.gateway)?),
        };
        let mut keeper = Keeper::new().map_err(SetupError::from)?;
        let opener = Opener::new(settings);
        // What has been removed keeps its flows: it is there until these are known, and removed then.
        let all = taker.with_removed(settings);
        let mut engine = Engine::try_new(&all)?;
        huge_pages::advise(engine.memory());
        let about = About { queues: queues.len(), ..About::new(settings, BEGIN, std::process::id()) };
        let follower = Follower::new(settings, name).map_err(SetupError::from)?;
        // Before the copy begins: from here on the programs learn the replies of new flows.
        let marking = Marking::beside(&all, name, keys, taker.young_until(now()))
            .inspect_err(|error| log::warn!("{}", preflight::without_marks(error)))
            .ok();
        let (mut marking, has_keys) = marking.map_or((None, false), |(marking, has_keys)| (Some(marking), has_keys));
        taker.read_once(&mut engine, now).map_err(GatewayError::Takeover)?;
        engine.reload(now(), settings, Removed::Drain);
        engine.retire(taker.retired());
        if let Some(marking) = marking.as_mut().filter(|_| !has_keys) {
            marking.store_all(&engine);
        }
        let pair = Pair::open(settings, taker.role(), &mut engine, now())?;
        let announces = pair.as_ref().is_none_or(|pair| pair.announces() == Announce::Yes);
        let select = if marking.is_some() { Select::Marks } else { Select::Addresses };
        let of = (taker.proxying(), engine.retired(), announces);
        let installed = Installed::adopt((settings, &all), name, follower.interfaces(), select, of)?;
        keeper.follow(&installed);
        let mut nat = NatOfOthers::watch(name, settings.gateway.route_table);
        nat.settle();
        keeper.guard(nat);
        // The other gateway has the file until it ends.
        let keeping = settings.gateway.state_file.as_ref();
        let keeping =
            keeping.map(|path| Keeping::later(path, settings.gateway.state_interval, now())).transpose()?.flatten();
        let programs = (marking, carrying_for(settings));
        let equipment = Equipment { opener, queues, control, giver, follower, keeper, programs, keeping, pair, clock };
        Gateway::assemble(engine, (about, ledger, found), equipment, installed)
    }
}
