//! The demo's gateway: a thread in the gateway's namespace, and a client of its control socket.

use super::options::DemoError;
use crate::config::Settings;
use crate::control::client::{Client, ClientError};
use crate::control::{Answer, Request, Totals};
use crate::engine::{MonitorRow, ServerRow};
use crate::gateway::netns::Namespace;
use crate::gateway::{Gateway, Stopper};
use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;

/// What the gateway reports.
pub(super) struct Seen {
    /// Its servers, in the order of the configuration.
    pub servers: Vec<ServerRow>,
    /// What its monitors see for each address.
    pub monitors: Vec<MonitorRow>,
    /// Its totals.
    pub totals: Totals,
}

/// A running gateway; dropping it stops it.
pub(super) struct Balancer {
    stopper: Stopper,
    thread: Option<JoinHandle<Result<(), DemoError>>>,
    client: Option<Client>,
}

impl Balancer {
    /// Starts it; returns when it is ready for packets and requests.
    pub(super) fn start(namespace: &Namespace, settings: Settings, socket: &Path) -> Result<Balancer, DemoError> {
        let fail = |e: &dyn std::fmt::Display| DemoError::new("the gateway did not start", e);
        let (tell, told) = mpsc::channel();
        let inside = namespace.clone();
        let thread = std::thread::Builder::new().name("gateway".into()).spawn(move || {
            inside.enter().map_err(|e| DemoError::new("the gateway did not start", e))?;
            let mut gateway = Gateway::open(&settings).map_err(|e| DemoError::new("the gateway did not start", e))?;
            let _ = tell.send(gateway.stopper());
            let ran = gateway.run();
            let closed = gateway.close();
            ran.and(closed).map_err(|e| DemoError::new("the gateway failed", e))
        });
        let thread = thread.map_err(|e| fail(&e))?;
        let Ok(stopper) = told.recv() else {
            // It ended before it was ready: only its error says why.
            return Err(end(thread).err().unwrap_or_else(|| fail(&"it ended at once")));
        };
        let mut balancer = Balancer { stopper, thread: Some(thread), client: None };
        balancer.client = Some(Client::connect(socket).map_err(|e| fail(&e))?);
        Ok(balancer)
    }

    /// Asks for servers and totals, as eqctl does.
    pub(super) fn ask(&mut self) -> Result<Seen, DemoError> {
        let fail = |e: ClientError| DemoError::new("the gateway does not answer on its control socket", e);
        let silent = || DemoError::new("the gateway does not answer on its control socket", "it said nothing");
        let client = self.client.as_mut().ok_or_else(silent)?;
        let (rows, _) = client.rows(&Request::Servers).map_err(fail)?;
        let servers =
            rows.into_iter().filter_map(|a| if let Answer::Server(row) = a { Some(*row) } else { None }).collect();
        let (rows, _) = client.rows(&Request::Counters).map_err(fail)?;
        let totals = rows.into_iter().find_map(|a| if let Answer::Counters(totals) = a { Some(*totals) } else { None });
        let (rows, _) = client.rows(&Request::Monitors).map_err(fail)?;
        let monitors = rows.into_iter().filter_map(|a| if let Answer::Monitor(row) = a { Some(*row) } else { None });
        Ok(Seen { servers, monitors: monitors.collect(), totals: totals.ok_or_else(silent)? })
    }

    /// Stops it and waits until it has removed everything.
    pub(super) fn stop(mut self) -> Result<(), DemoError> {
        self.stopper.stop();
        self.thread.take().map_or(Ok(()), end)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.stopper.stop();
        // Whoever drops it already has a more important error.
        let _ = self.thread.take().map(end);
    }
}

fn end(thread: JoinHandle<Result<(), DemoError>>) -> Result<(), DemoError> {
    thread
        .join()
        .unwrap_or_else(|_| Err(DemoError::new("the gateway failed", "its thread panicked; the panic is above")))
}
