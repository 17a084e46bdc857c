//! Known faults of the engine that the model imitates so that it can go on checking everything else.
//!
//! When the engine is fixed, set its constant to `false` (the model then does what is right), check that the test
//! passes, and remove the constant together with the branch that imitates the fault.

/// Forcing a server down has no effect while its monitors say "unknown": flows stay, rows show "unknown".
pub const FORCING_THE_UNKNOWN_IS_LOST: bool = true;
/// Forcing a server without monitors up or down also reports and counts the family in which it has no address.
pub const ABSENT_ADDRESSES_GO_DOWN: bool = true;
/// If a server changes between the end of its passive hold and the next timeout, the timer of that end is lost: slow
/// start does not begin then, but with whichever timer comes next.
pub const END_OF_HOLD_IS_LOST: bool = true;
/// A server under maintenance whose report expires gets its full weight at once; one that reports the end of its
/// maintenance starts slowly.
pub const OLD_REPORT_NEEDS_NO_SLOW_START: bool = true;
/// When a packet ends the last flow of a draining server, `ServerDrained` is only reported with the next timeout, order or
/// probe, and no timeout is requested for it.
pub const NOTICES_WAIT: bool = true;
/// A rule can send a service flows of a family that the service does not listen on. For these all servers count as up,
/// even servers that are down.
pub const UNLISTENED_FAMILIES_ARE_UP: bool = true;
/// Least latency: the average that stands in for a server that was never measured is computed when weights change, not
/// when latencies do; before the first measurement it is zero, which attracts all flows.
pub const AVERAGE_LATENCY_IS_OLD: bool = true;
/// The segment size of a SYN that has to be fragmented is not clamped.
pub const CUT_SYN_IS_NOT_CLAMPED: bool = true;
/// While the server's sequence numbers are unknown (an adopted flow), they are taken for 0 when the client's
/// acknowledgements are judged.
pub const UNKNOWN_NUMBERS_ARE_ZERO: bool = true;
