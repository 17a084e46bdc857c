//! Where the engine does other than it should, and the model follows it. What is mended is set to `false` here, and the
//! branch that follows it goes.

/// A server that is unknown to its monitors and forced down, or released again, stays what it counted as.
pub const FORCING_THE_UNKNOWN_IS_LOST: bool = true;
/// A forced server without monitors is told of, and counted, in a family in which it has no address.
pub const ABSENT_ADDRESSES_GO_DOWN: bool = true;
/// A change of a server at the very end of its hold loses that end: no slow start, or one that comes with its next timer.
pub const END_OF_HOLD_IS_LOST: bool = true;
/// Who asked to be left alone and is heard of no more takes flows again at once, without a slow start.
pub const OLD_REPORT_NEEDS_NO_SLOW_START: bool = true;
/// What follows from a flow that ends with a packet (a server is drained) is told with the next timeout or order.
pub const NOTICES_WAIT: bool = true;
/// Flows that a rule sends to a service from a family in which it does not listen find its servers up, whatever is known.
pub const UNLISTENED_FAMILIES_ARE_UP: bool = true;
/// A server that was never measured counts as the average of when weights last changed.
pub const AVERAGE_LATENCY_IS_OLD: bool = true;
/// A SYN that is cut keeps its segment size.
pub const CUT_SYN_IS_NOT_CLAMPED: bool = true;
