//! What a history has tested.

#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub opened: u64,
    pub closed: u64,
    pub lost: u64,
    pub answers: u64,
    /// Sticky clients of which both must have the same at the end, and those that operators have cleared and neither may have.
    pub stuck: u64,
    pub forgotten: u64,
    /// Connections that a gateway must know although it has only been told of their half-open flows.
    pub told: u64,
    /// Talks to which something has happened that must not, and that are excused.
    pub spared: u64,
    /// Connections of sticky clients whose server was known, and those that told it.
    pub held: u64,
    pub pinned: u64,
    /// Those that would have told it had they been begun when both were in step.
    pub early: u64,
    /// Looks at a standby that follows the other one's view of the servers, and at servers that are down.
    pub follows: u64,
    pub downs: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        let own = [
            &mut self.opened,
            &mut self.closed,
            &mut self.lost,
            &mut self.answers,
            &mut self.spared,
            &mut self.held,
            &mut self.pinned,
            &mut self.early,
            &mut self.follows,
            &mut self.downs,
            &mut self.stuck,
            &mut self.forgotten,
            &mut self.told,
        ];
        let Counts {
            opened,
            closed,
            lost,
            answers,
            spared,
            held,
            pinned,
            early,
            follows,
            downs,
            stuck,
            forgotten,
            told,
        } = *other;
        let other =
            [opened, closed, lost, answers, spared, held, pinned, early, follows, downs, stuck, forgotten, told];
        own.into_iter().zip(other).for_each(|(own, other)| *own += other);
    }
}
