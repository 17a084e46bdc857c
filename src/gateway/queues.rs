//! The queues of the device, and in which order packets are taken from them.

use super::bpf::steering::{self, Steering};
use super::bpf::{AddressSet, BpfError};
use super::preflight;
use super::tun::{Frame, OpenError, Tun};
use crate::config::Settings;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Opens the device, also a second time if it was deleted.
#[derive(Debug)]
pub(super) struct Opener {
    name: String,
    offload: bool,
    /// Without it the device has one queue.
    program: Option<Steering>,
}

impl Opener {
    /// Loads the program that chooses the queue; logs why if it cannot be loaded.
    pub(super) fn new(settings: &Settings) -> Opener {
        let program = Steering::load(settings).inspect_err(|e| log::warn!("{}", preflight::without_steering(e))).ok();
        Opener { name: settings.gateway.device.clone(), offload: settings.gateway.offload, program }
    }

    /// Adds servers to those that the program that chooses the queue knows.
    pub(super) fn extend(&mut self, servers: &AddressSet) -> Result<(), BpfError> {
        self.program.as_mut().map_or(Ok(()), |program| program.extend(servers))
    }

    /// Has it forget other servers than these.
    pub(super) fn restrict(&mut self, servers: &AddressSet) {
        if let Some(program) = &mut self.program {
            program.restrict(servers);
        }
    }

    /// Chooses the queues of a device that is open already.
    pub(super) fn steer(&mut self, queues: &Queues) {
        let Some(program) = &self.program else { return };
        if queues.all().len() > 1
            && let Err(error) = queues.first().steer(program.as_fd())
        {
            log::warn!("{error}; queues are chosen as by the previous gateway");
        }
    }

    /// Opens the device, with several queues if that is possible.
    pub(super) fn open(&mut self) -> Result<Vec<Tun>, OpenError> {
        if let Some(program) = &self.program {
            match Tun::open_queues(&self.name, self.offload, steering::QUEUES, program.as_fd()) {
                Err(e) if e.errno() == Some(libc::EINVAL) => log::warn!("{}", preflight::without_queues(&self.name)),
                result => return result,
            }
            self.program = None;
        }
        Ok(vec![Tun::open(&self.name, self.offload)?])
    }
}

/// Packets of the most urgent queue before the others get their turn, and packets of another queue before the most
/// urgent one is looked at again.
///
/// Large enough that looking, one read that finds nothing, costs little beside what it is spent on; small enough that
/// an urgent packet waits for tens of microseconds. Each of the others gets at least a tenth of the packets.
const TURNS: [u32; 2] = [32, 8];

/// The device's queues, the most urgent first; what is written goes into any of them.
#[derive(Debug)]
pub(super) struct Queues {
    queues: Vec<Tun>,
    order: Order,
}

impl Queues {
    /// Takes the queues of a device: at least one.
    pub(super) fn new(queues: Vec<Tun>) -> Queues {
        let order = Order::new(queues.len());
        Queues { queues, order }
    }

    /// Returns all of them, the most urgent first.
    pub(super) fn all(&self) -> &[Tun] {
        &self.queues
    }

    /// Returns the first, which stands for the device.
    pub(super) fn first(&self) -> &Tun {
        &self.queues[0]
    }

    /// Returns the descriptors of all of them.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.queues.iter().map(AsFd::as_fd).collect()
    }

    /// Notes that a queue may have packets; a number beyond the queues is ignored.
    pub(super) fn has_news(&mut self, queue: usize) {
        if let Some(waits) = self.order.waits.get_mut(queue) {
            *waits = true;
        }
    }

    /// Notes that no queue has packets, because the device is gone.
    pub(super) fn have_none(&mut self) {
        self.order.waits.fill(false);
    }

    /// Returns whether there may be packets.
    pub(super) fn may_have_packets(&self) -> bool {
        self.order.waits.contains(&true)
    }

    /// Returns whether packets wait, as far as is known only openers of connections.
    pub(super) fn have_openers_only(&self) -> bool {
        self.queues.len() > 1 && self.order.waits[1..].contains(&true)
    }

    /// Reads the next packet in order and returns its length without the header; none if all queues are empty.
    #[inline]
    pub(super) fn read(&mut self, frame: &mut Frame) -> io::Result<Option<usize>> {
        while let Some(queue) = self.order.next() {
            match self.queues[queue].read(frame) {
                Ok(len) => {
                    self.order.took();
                    return Ok(Some(len));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.order.found_empty(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// Which queue is next.
#[derive(Debug)]
struct Order {
    /// Which queues may have packets.
    waits: Vec<bool>,
    /// The queue whose turn it is, and the packets left of its turn.
    at: usize,
    left: u32,
    /// The last one of the others that had a turn.
    other: usize,
}

impl Order {
    fn new(queues: usize) -> Order {
        Order { waits: vec![true; queues.max(1)], at: 0, left: TURNS[0], other: 0 }
    }

    /// Returns the queue to read; none if no queue may have packets.
    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.left == 0 || !self.waits[self.at] {
            self.turn();
        }
        self.waits[self.at].then_some(self.at)
    }

    fn turn(&mut self) {
        let queues = self.waits.len();
        let next =
            (1..=queues).map(|step| (self.other + step) % queues).find(|queue| *queue != 0 && self.waits[*queue]);
        match next {
            Some(other) if self.at == 0 => (self.at, self.left, self.other) = (other, TURNS[1], other),
            // Between two turns of the others it is the first one's, whether news of it has come or not: asking for
            // news takes a system call, and so does looking.
            Some(_) => {
                (self.at, self.left) = (0, TURNS[0]);
                self.waits[0] = true;
            }
            None => (self.at, self.left) = (0, TURNS[0]),
        }
    }

    #[inline]
    fn took(&mut self) {
        self.left -= 1;
    }

    fn found_empty(&mut self) {
        self.waits[self.at] = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes up to `most` packets from queues that hold these numbers; returns from which, and how often it looked in
    /// vain.
    fn taken(order: &mut Order, held: &mut [u32], most: usize) -> (Vec<usize>, u32) {
        let (mut from, mut vain) = (Vec::new(), 0);
        while from.len() < most
            && let Some(queue) = order.next()
        {
            if held[queue] == 0 {
                order.found_empty();
                vain += 1;
            } else {
                held[queue] -= 1;
                order.took();
                from.push(queue);
            }
        }
        (from, vain)
    }

    fn count(from: &[usize], queue: usize) -> usize {
        from.iter().filter(|of| **of == queue).count()
    }

    #[test]
    fn one_queue_is_read_until_it_is_empty() {
        let mut order = Order::new(1);
        let (from, vain) = taken(&mut order, &mut [200], 1000);
        assert_eq!((from.len(), vain), (200, 1));
        assert_eq!(order.next(), None);
        order.waits[0] = true;
        assert_eq!(order.next(), Some(0));
    }

    #[test]
    fn the_first_queue_goes_first_and_the_others_share_the_rest() {
        let (from, _) = taken(&mut Order::new(3), &mut [30, 500, 500], 250);
        assert!(from[..30].iter().all(|queue| *queue == 0), "{from:?}");
        assert_eq!((count(&from, 1), count(&from, 2)), (112, 108));
    }

    #[test]
    fn a_packet_of_the_first_queue_waits_for_one_turn_of_another_at_most() {
        let mut order = Order::new(3);
        let mut held = [0, 1000, 1000];
        let (_, vain) = taken(&mut order, &mut held, 400);
        // One look in vain after each turn of 8, and the first one.
        assert_eq!(vain, 50);
        for step in 0..40 {
            taken(&mut order, &mut held, step);
            held[0] = 1;
            let (from, _) = taken(&mut order, &mut held, 9);
            assert!(from.contains(&0), "after {step}: {from:?}");
        }
    }

    #[test]
    fn a_first_queue_that_is_never_empty_leaves_each_other_a_tenth() {
        let (from, _) = taken(&mut Order::new(3), &mut [u32::MAX; 3], 8_000);
        for other in [1, 2] {
            assert_eq!(count(&from, other), 800);
        }
    }

    #[test]
    fn an_empty_queue_is_left_alone_until_there_is_news() {
        let mut order = Order::new(3);
        let (_, vain) = taken(&mut order, &mut [3, 0, 4], 100);
        assert_eq!(vain, 4);
        assert_eq!(order.next(), None);
        order.waits[2] = true;
        assert_eq!(taken(&mut order, &mut [0, 9, 1], 100).0, [2]);
    }
}
