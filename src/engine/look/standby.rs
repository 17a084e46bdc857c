//! What a gateway that stands by does: it forwards packets of flows that it knows, and leaves everything else to its peer.
//!
//! Packets still arrive while an address moves from one gateway to the other.

use super::super::Reason;
use super::super::step::{ErrorOnward, Fate, Reply, Settled, Step};

/// Returns the step of a gateway that stands by: nothing is answered, and no flow begins or ends.
#[cold]
pub(super) fn standby(step: Step) -> Step {
    let left = Step::Stop(Settled::drop(Reason::OtherGateway));
    match step {
        Step::Prepare(_) | Step::Probe | Step::Fragment { .. } => step,
        Step::Hit(ref hit) if hit.onward.goes_on() => step,
        Step::Error(ref error) if !matches!(error.onward, ErrorOnward::Stop { .. }) => step,
        // Of the kernel's own traffic, and what nobody answers anyway.
        Step::Settle(Settled { fate: fate @ (Fate::Foreign | Fate::Direct), .. }) => {
            Step::Stop(Settled { fate, reply: Reply::None })
        }
        Step::Settle(Settled { fate: Fate::Drop(reason), reply: Reply::None }) => Step::Stop(Settled::drop(reason)),
        Step::Hit(_)
        | Step::Open(_)
        | Step::Settle(_)
        | Step::Stop(_)
        | Step::EndByReset { .. }
        | Step::EndThenAgain { .. }
        | Step::Disown { .. }
        | Step::Error(_) => left,
    }
}
