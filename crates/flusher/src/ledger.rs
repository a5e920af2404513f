//! What a group commits to.

use crate::Failure;

/// Where operations go, several in one transaction.
pub trait Ledger: Send + 'static {
    type Op: Send + 'static;
    /// What an operation's caller gets, its own failure included: an operation that fails alone
    /// leaves the rest of its transaction as it was.
    type Answer: Send + 'static;

    /// Begins a transaction that may write.
    ///
    /// # Errors
    /// `Busy` if it may be tried again.
    fn begin(&mut self) -> Result<(), Failure>;

    /// Carries one operation out. It may be carried out again after a roll-back.
    ///
    /// # Errors
    /// Only what fails the whole transaction.
    fn apply(&mut self, op: &Self::Op) -> Result<Self::Answer, Failure>;

    /// Commits what was applied.
    ///
    /// # Errors
    /// `Busy` if nothing was committed.
    fn commit(&mut self) -> Result<(), Failure>;

    /// Undoes what was applied since [`begin`](Ledger::begin); called after any failure since.
    fn roll_back(&mut self);

    /// A transaction of one operation; override it where that is cheaper.
    ///
    /// # Errors
    /// As the three steps.
    fn apply_alone(&mut self, op: &Self::Op) -> Result<Self::Answer, Failure> {
        self.begin()?;
        let answer = self.apply(op)?;
        self.commit()?;
        Ok(answer)
    }

    /// Completes an answer, after its commit, with what its operation holds. It runs where the
    /// caller is, while others commit.
    fn settle(op: Self::Op, answer: Self::Answer) -> Self::Answer {
        drop(op);
        answer
    }
}
