use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use forebay_flusher::{Backoff, Failure, Group, GroupOptions, Ledger, Refused};

/// What happened at the ledger, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Alone(u64),
    Commit(Vec<u64>),
}

#[derive(Clone, Default)]
struct Book(Arc<Mutex<Vec<Entry>>>);

impl Book {
    fn write(&self, entry: Entry) {
        self.0.lock().expect("no test panics here").push(entry);
    }

    fn entries(&self) -> Vec<Entry> {
        self.0.lock().expect("no test panics here").clone()
    }

    fn committed(&self) -> Vec<u64> {
        let ops = self.entries().into_iter().flat_map(|entry| match entry {
            Entry::Alone(op) => vec![op],
            Entry::Commit(ops) => ops,
        });
        ops.collect()
    }
}

/// A ledger whose first transactions wait for the test and then fail as it says.
struct Paper {
    book: Book,
    open: Vec<u64>,
    gate: Option<Gate>,
    failures: VecDeque<Failure>,
}

struct Gate {
    reached: Sender<()>,
    go: Receiver<()>,
}

impl Paper {
    fn new(book: &Book) -> Self {
        Paper { book: book.clone(), open: Vec::new(), gate: None, failures: VecDeque::new() }
    }

    fn fail(&mut self) -> Result<(), Failure> {
        self.failures.pop_front().map_or(Ok(()), Err)
    }
}

/// An operation is a number; the odd ones fail alone.
type Answer = Result<u64, &'static str>;

fn answer(op: u64) -> Answer {
    if op.is_multiple_of(2) { Ok(op * 10) } else { Err("odd") }
}

impl Ledger for Paper {
    type Op = u64;
    type Answer = Answer;

    fn begin(&mut self) -> Result<(), Failure> {
        assert!(self.open.is_empty(), "one transaction at a time");
        Ok(())
    }

    fn apply(&mut self, op: &u64) -> Result<Answer, Failure> {
        assert_ne!(*op, PANIC, "a bug in the ledger");
        self.open.push(*op);
        Ok(answer(*op))
    }

    fn commit(&mut self) -> Result<(), Failure> {
        self.fail()?;
        self.book.write(Entry::Commit(std::mem::take(&mut self.open)));
        Ok(())
    }

    fn roll_back(&mut self) {
        self.open.clear();
    }

    fn apply_alone(&mut self, op: &u64) -> Result<Answer, Failure> {
        if let Some(gate) = self.gate.take() {
            gate.reached.send(()).expect("the test listens");
            gate.go.recv().expect("the test lets the first go");
        }
        assert_ne!(*op, PANIC, "a bug in the ledger");
        self.fail()?;
        self.book.write(Entry::Alone(*op));
        Ok(answer(*op))
    }
}

const PANIC: u64 = u64::MAX - 1;

fn options() -> GroupOptions {
    GroupOptions {
        hold_max: Duration::from_secs(3600),
        backoff: Backoff { first: Duration::ZERO, longest: Duration::ZERO },
        ..GroupOptions::default()
    }
}

/// A group whose first operation is held until the test lets it go.
struct Held {
    group: Arc<Group<Paper>>,
    book: Book,
    reached: Receiver<()>,
    go: Sender<()>,
}

fn held(options: GroupOptions, failures: Vec<Failure>) -> Held {
    let book = Book::default();
    let (reached, is_reached) = mpsc::channel();
    let (go, may_go) = mpsc::channel();
    let mut paper = Paper::new(&book);
    paper.gate = Some(Gate { reached, go: may_go });
    paper.failures = failures.into();
    Held { group: Arc::new(Group::new(paper, options)), book, reached: is_reached, go }
}

impl Held {
    /// Runs `first`, and while it is held puts `rest` in line in order; all their answers.
    fn play(&self, first: u64, rest: &[u64]) -> Vec<Result<Answer, Refused>> {
        let leader = self.spawn(first);
        self.reached.recv().expect("the first operation leads");
        let tasks: Vec<_> =
            rest.iter().map(|op| self.group.submit_async(*op).expect("there is room in line")).collect();
        self.go.send(()).expect("the first operation is held");
        let mut answers = vec![leader.join().expect("no caller panics")];
        answers.extend(tasks.into_iter().map(block_on));
        answers
    }

    fn spawn(&self, op: u64) -> thread::JoinHandle<Result<Answer, Refused>> {
        let group = Arc::clone(&self.group);
        thread::spawn(move || group.submit(op))
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn one_caller_commits_alone_on_its_own_thread() {
    let book = Book::default();
    let group = Group::new(Paper::new(&book), options());
    assert_eq!(group.submit(2).expect("committed"), Ok(20));
    assert_eq!(group.submit(4).expect("committed"), Ok(40));
    assert_eq!(book.entries(), [Entry::Alone(2), Entry::Alone(4)]);
}

#[test]
fn callers_that_come_during_a_commit_share_the_next_in_the_order_they_came() {
    let held = held(options(), Vec::new());
    let answers = held.play(0, &[2, 4, 6]);
    let answers: Vec<Answer> = answers.into_iter().map(|a| a.expect("committed")).collect();
    assert_eq!(answers, [Ok(0), Ok(20), Ok(40), Ok(60)]);
    assert_eq!(held.book.entries(), [Entry::Alone(0), Entry::Commit(vec![2, 4, 6])]);
}

#[test]
fn an_operation_that_fails_by_itself_fails_alone() {
    let held = held(options(), Vec::new());
    let answers = held.play(0, &[2, 3, 4]);
    let answers: Vec<Answer> = answers.into_iter().map(|a| a.expect("committed")).collect();
    assert_eq!(answers, [Ok(0), Ok(20), Err("odd"), Ok(40)]);
}

#[test]
fn a_transaction_takes_at_most_batch_max_operations() {
    let held = held(GroupOptions { batch_max: 2, ..options() }, Vec::new());
    held.play(0, &[2, 4, 6]);
    let expected = [Entry::Alone(0), Entry::Commit(vec![2, 4]), Entry::Alone(6)];
    assert_eq!(held.book.entries(), expected);
}

#[test]
fn a_transaction_that_is_old_enough_takes_no_more() {
    let held = held(GroupOptions { hold_max: Duration::ZERO, ..options() }, Vec::new());
    held.play(0, &[2, 4, 6]);
    let expected = [Entry::Alone(0), Entry::Commit(vec![2]), Entry::Commit(vec![4]), Entry::Alone(6)];
    assert_eq!(held.book.entries(), expected);
}

#[test]
fn a_busy_commit_is_tried_again_whole_and_in_order() {
    let busy = || Failure::Busy("locked".into());
    let held = held(options(), vec![busy(), busy(), busy()]);
    held.play(0, &[2, 4, 6]);
    assert_eq!(held.book.committed(), [0, 2, 4, 6]);
}

#[test]
fn a_commit_that_stays_busy_is_refused_to_all_of_it_and_the_group_goes_on() {
    let busy = || Failure::Busy("locked".into());
    let options = GroupOptions { busy_timeout: Duration::ZERO, ..options() };
    let held = held(options, vec![busy()]);
    let answers = held.play(0, &[2]);
    assert!(matches!(&answers[0], Err(Refused::Busy(cause)) if cause.to_string() == "locked"));
    assert_eq!(answers[1].as_ref().expect("committed"), &Ok(20));
    assert_eq!(held.group.submit(4).expect("committed"), Ok(40));
    assert_eq!(held.book.committed(), [2, 4]);
}

#[test]
fn a_broken_ledger_is_told_to_all_and_ends_the_group() {
    let held = held(options(), vec![Failure::Broken("corrupt".into())]);
    let answers = held.play(0, &[2, 4]);
    assert!(answers.iter().all(|answer| matches!(answer, Err(Refused::Broken(_)))));
    assert!(matches!(held.group.submit(6), Err(Refused::Broken(_))));
    assert!(held.group.close().is_none());
    assert_eq!(held.book.committed(), []);
}

#[test]
fn a_panic_in_the_ledger_breaks_the_group_and_hangs_nobody() {
    let held = held(options(), Vec::new());
    let answers = held.play(0, &[2, PANIC, 4]);
    assert!(answers[0].is_ok());
    assert!(answers[1..].iter().all(|answer| matches!(answer, Err(Refused::Broken(_)))));
}

#[test]
fn a_full_line_refuses_an_async_caller() {
    let held = held(GroupOptions { waiting_max: 1, ..options() }, Vec::new());
    let leader = held.spawn(0);
    held.reached.recv().expect("the first operation leads");
    let waiting = held.group.submit_async(2).expect("there is room for one");
    assert!(matches!(held.group.submit_async(4), Err(Refused::Full)));
    held.go.send(()).expect("the first operation is held");
    assert_eq!(block_on(waiting).expect("committed"), Ok(20));
    leader.join().expect("no caller panics").expect("committed").expect("even");
}

#[test]
fn the_ledger_is_lent_between_transactions() {
    let held = held(options(), Vec::new());
    let leader = held.spawn(0);
    held.reached.recv().expect("the first operation leads");
    let lender = thread::spawn({
        let group = Arc::clone(&held.group);
        move || group.with_ledger(|paper| paper.book.entries())
    });
    held.go.send(()).expect("the first operation is held");
    let seen = lender.join().expect("no caller panics").expect("lent");
    assert_eq!(seen, [Entry::Alone(0)]);
    leader.join().expect("no caller panics").expect("committed").expect("even");
    assert_eq!(held.group.submit(2).expect("committed"), Ok(20));
}

#[test]
fn closing_finishes_what_is_in_line_and_refuses_the_rest() {
    let held = held(options(), Vec::new());
    let leader = held.spawn(0);
    held.reached.recv().expect("the first operation leads");
    let waiting = held.group.submit_async(2).expect("there is room in line");
    held.go.send(()).expect("the first operation is held");
    assert!(held.group.close().is_some());
    assert_eq!(block_on(waiting).expect("committed"), Ok(20));
    leader.join().expect("no caller panics").expect("committed").expect("even");
    assert!(matches!(held.group.submit(4), Err(Refused::Closed)));
    assert!(held.group.close().is_none());
    assert_eq!(held.book.committed(), [0, 2]);
}

#[test]
fn dropping_the_group_carries_out_what_was_left_in_line() {
    let book = Book::default();
    let group = Group::new(Paper::new(&book), options());
    let tasks: Vec<_> = (0..100).map(|n| group.submit_async(n * 2).expect("there is room in line")).collect();
    drop(group);
    assert_eq!(book.committed(), (0..100).map(|n| n * 2).collect::<Vec<_>>());
    for (n, task) in (0..).zip(tasks) {
        assert_eq!(block_on(task).expect("committed"), Ok(n * 20));
    }
}

#[test]
fn many_threads_and_tasks_get_each_its_own_answer_and_each_operation_is_written_once() {
    const THREADS: u64 = 16;
    const EACH: u64 = 2_000;
    let book = Book::default();
    let mut paper = Paper::new(&book);
    paper.failures = (0..50).map(|_| Failure::Busy("locked".into())).collect();
    let group = Group::new(paper, GroupOptions { waiting_max: 8, batch_max: 7, ..options() });
    let full = AtomicUsize::new(0);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (group, full) = (&group, &full);
            scope.spawn(move || {
                for n in 0..EACH {
                    let op = thread * EACH + n;
                    let answered = if n % 3 == 0 {
                        match group.submit_async(op) {
                            Ok(task) => block_on(task),
                            Err(Refused::Full) => {
                                full.fetch_add(1, Ordering::Relaxed);
                                group.submit(op)
                            }
                            Err(refused) => panic!("{refused}"),
                        }
                    } else if n % 101 == 0 {
                        group.with_ledger(|paper| assert!(paper.open.is_empty())).expect("lent");
                        group.submit(op)
                    } else {
                        group.submit(op)
                    };
                    assert_eq!(answered.expect("committed"), answer(op));
                }
            });
        }
    });
    let mut committed = book.committed();
    committed.sort_unstable();
    assert_eq!(committed, (0..THREADS * EACH).collect::<Vec<_>>());
}
