//! What ends the loop, or makes it read its configuration again: signals, and a call from another thread.

use super::{EventLoop, SIGNALS};
use crate::gateway::error::GatewayError;
use mio::{Interest, Waker};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Stops a running loop from another thread.
#[derive(Debug, Clone)]
pub struct Stopper {
    pub(super) stop: Arc<AtomicBool>,
    pub(super) waker: Arc<Waker>,
}

impl Stopper {
    /// Makes the loop return once the current batch of packets is done.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        if let Err(error) = self.waker.wake() {
            log::error!("cannot wake the event loop to stop the gateway: {error}");
        }
    }
}

/// SIGINT, SIGTERM and SIGHUP, which no longer end the process but wait for an event loop to handle them.
///
/// To be taken before anything is set up: a signal that arrives during set-up must not leave half of it behind.
pub struct TakenSignals(Signals);

impl TakenSignals {
    /// Takes them over for the whole process; SIGHUP only if it is not ignored, as it is under nohup(1).
    pub fn take() -> Result<TakenSignals, GatewayError> {
        let which = [SIGINT, SIGTERM, SIGHUP];
        Signals::new(&which[..if ignores_hangup() { 2 } else { 3 }])
            .map(TakenSignals)
            .map_err(GatewayError::io("install the signal handlers"))
    }
}

/// Returns whether the process was started with SIGHUP ignored: bit 0 of SigIgn (proc_pid_status(5)).
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}

impl EventLoop {
    /// Makes SIGINT and SIGTERM end the loop, and SIGHUP reload the configuration.
    pub(in crate::gateway) fn handle_signals(&mut self, signals: TakenSignals) -> Result<(), GatewayError> {
        let mut signals = signals.0;
        let failed = GatewayError::io("watch for signals");
        self.poll.registry().register(&mut signals, SIGNALS, Interest::READABLE).map_err(&failed)?;
        self.signals = Some(signals);
        Ok(())
    }

    pub(super) fn take_signals(&mut self) {
        let Some(signals) = &mut self.signals else { return };
        for signal in signals.pending() {
            if signal == SIGHUP {
                self.reloads.signalled();
                continue;
            }
            log::info!("{}: stopping", if signal == SIGINT { "SIGINT" } else { "SIGTERM" });
            self.stopper.stop.store(true, Ordering::Release);
        }
    }
}
