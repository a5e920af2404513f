//! The order of jobs, and the cycle that forbids one.

use crate::workflow::{File, Job, UserData};

/// Who waits for whom. A file or a piece of user data stands between the jobs that write it and
/// those that read it, so that many writers and many readers do not make many edges.
pub(crate) struct Edges<'j> {
    pub(crate) jobs: &'j [Job],
    pub(crate) files: usize,
    pub(crate) user_data: usize,
}

/// The order in which jobs are created.
pub(crate) struct Order {
    /// Old indexes in the new order: by level, then as in the file.
    jobs: Vec<u32>,
    /// Where each level ends in the new order.
    pub(crate) level_ends: Vec<usize>,
}

/// Things that wait for each other: each for the next, the last for the first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cycle {
    things: Vec<Thing>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thing {
    Job(usize),
    File(usize),
    UserData(usize),
}

/// Finds the levels of the jobs by `depends_on`, or a cycle by that, files or user data.
pub(crate) fn order(edges: Edges<'_>) -> Result<Order, Cycle> {
    let done = edges.walk()?;
    let mut level = vec![0_u32; edges.jobs.len()];
    // `done` names each job after those that it depends on.
    for job in done {
        let below = edges.jobs[job].depends_on.iter().map(|before| level[*before as usize] + 1);
        level[job] = below.max().unwrap_or(0);
    }
    let mut jobs: Vec<u32> = (0..).take(edges.jobs.len()).collect();
    jobs.sort_by_key(|job| level[*job as usize]);
    let ends = jobs.chunk_by(|a, b| level[*a as usize] == level[*b as usize]).scan(0, |end, chunk| {
        *end += chunk.len();
        Some(*end)
    });
    let level_ends = ends.collect();
    Ok(Order { jobs, level_ends })
}

impl Order {
    /// By old index, the new one.
    pub(crate) fn moved(&self) -> Vec<u32> {
        let mut moved = vec![0; self.jobs.len()];
        for (new, old) in (0..).zip(&self.jobs) {
            moved[*old as usize] = new;
        }
        moved
    }

    /// Puts jobs into this order, with what they depend on.
    pub(crate) fn apply(&self, jobs: Vec<Job>) -> Vec<Job> {
        let moved = self.moved();
        let mut jobs: Vec<Option<Job>> = jobs.into_iter().map(Some).collect();
        let in_order = self.jobs.iter().map(|old| {
            let mut job = jobs[*old as usize].take().expect("an order names each job once");
            job.depends_on.iter_mut().for_each(|before| *before = moved[*before as usize]);
            job
        });
        in_order.collect()
    }
}

impl Edges<'_> {
    /// All jobs, each after everything that it waits for.
    fn walk(&self) -> Result<Vec<usize>, Cycle> {
        let count = self.jobs.len() + self.files + self.user_data;
        let mut waits_for = vec![0_u32; count];
        let mut starts = vec![0_usize; count + 1];
        self.each(|before, after| {
            waits_for[after] += 1;
            starts[before + 1] += 1;
        });
        for index in 0..count {
            starts[index + 1] += starts[index];
        }
        let mut next = starts.clone();
        let mut followers = vec![0_u32; starts[count]];
        self.each(|before, after| {
            followers[next[before]] = u32::try_from(after).expect("lists are bounded far below");
            next[before] += 1;
        });

        let mut open: Vec<usize> = (0..count).filter(|thing| waits_for[*thing] == 0).collect();
        let mut done = Vec::with_capacity(self.jobs.len());
        let mut seen = 0;
        while let Some(thing) = open.pop() {
            seen += 1;
            if thing < self.jobs.len() {
                done.push(thing);
            }
            for follower in &followers[starts[thing]..starts[thing + 1]] {
                waits_for[*follower as usize] -= 1;
                if waits_for[*follower as usize] == 0 {
                    open.push(*follower as usize);
                }
            }
        }
        if seen == count {
            return Ok(done);
        }
        Err(self.cycle(&waits_for))
    }

    /// Names every edge, the earlier thing first.
    fn each(&self, mut edge: impl FnMut(usize, usize)) {
        let files = self.jobs.len();
        let user_data = files + self.files;
        for (index, job) in self.jobs.iter().enumerate() {
            job.depends_on.iter().for_each(|before| edge(*before as usize, index));
            job.input_files.iter().for_each(|file| edge(files + *file as usize, index));
            job.output_files.iter().for_each(|file| edge(index, files + *file as usize));
            job.input_user_data.iter().for_each(|data| edge(user_data + *data as usize, index));
            job.output_user_data.iter().for_each(|data| edge(index, user_data + *data as usize));
        }
    }

    /// A cycle among the things that still wait: from any of them back along what it waits for,
    /// until a thing comes again.
    fn cycle(&self, waits_for: &[u32]) -> Cycle {
        let mut waits_on = vec![None; waits_for.len()];
        self.each(|before, after| {
            if waits_for[before] > 0 && waits_for[after] > 0 {
                waits_on[after].get_or_insert(before);
            }
        });
        let mut step = vec![None; waits_for.len()];
        let mut path = Vec::new();
        let mut thing = waits_for.iter().position(|count| *count > 0).expect("a cycle leaves something that waits");
        while step[thing].is_none() {
            step[thing] = Some(path.len());
            path.push(thing);
            thing = waits_on[thing].expect("what still waits, waits for something that still waits");
        }
        let start = step[thing].expect("the loop ends at a thing that came before");
        let mut path = path.split_off(start);
        // Begin with the job that comes first in the file.
        let first = path.iter().enumerate().min_by_key(|(_, thing)| **thing).map_or(0, |(index, _)| index);
        path.rotate_left(first);
        Cycle { things: path.into_iter().map(|thing| self.thing(thing)).collect() }
    }

    fn thing(&self, index: usize) -> Thing {
        let files = self.jobs.len();
        match index {
            job if job < files => Thing::Job(job),
            file if file < files + self.files => Thing::File(file - files),
            data => Thing::UserData(data - files - self.files),
        }
    }
}

impl Cycle {
    /// The job that the cycle is shown to begin with.
    pub(crate) fn first_job(&self) -> usize {
        let job = |thing: &Thing| match thing {
            Thing::Job(job) => Some(*job),
            Thing::File(_) | Thing::UserData(_) => None,
        };
        self.things.iter().find_map(job).expect("between two files there is a job")
    }

    /// The cycle by the names of its jobs, and why each waits.
    pub(crate) fn describe(&self, jobs: &[Job], files: &[File], user_data: &[UserData]) -> (String, String) {
        /// Jobs that are named; a longer cycle is cut.
        const SHOWN_MAX: usize = 8;
        let thing = |index: usize| self.things[index % self.things.len()];
        let mut names = Vec::new();
        let mut links = Vec::new();
        for (index, waiting) in self.things.iter().enumerate() {
            let Thing::Job(waiting) = *waiting else { continue };
            let (why, target) = match thing(index + 1) {
                Thing::Job(target) => ("depends_on".to_owned(), Thing::Job(target)),
                Thing::File(file) => (format!("reads the file `{}` of", files[file].name), thing(index + 2)),
                Thing::UserData(data) => {
                    (format!("reads the user data `{}` of", user_data[data].name), thing(index + 2))
                }
            };
            names.push(format!("`{}`", jobs[waiting].name));
            if let Thing::Job(target) = target {
                links.push(format!("`{}` {why} `{}`", jobs[waiting].name, jobs[target].name));
            }
        }
        names.push(format!("`{}`", jobs[self.first_job()].name));
        if names.len() > SHOWN_MAX + 1 {
            let more = names.len() - 1 - SHOWN_MAX;
            names.splice(SHOWN_MAX..names.len() - 1, [format!("({more} more)")]);
            links.truncate(SHOWN_MAX);
            links.push("…".to_owned());
        }
        (format!("these jobs wait for each other: {}", names.join(" → ")), links.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn job(name: usize, depends_on: Vec<u32>, input_files: Vec<u32>, output_files: Vec<u32>) -> Job {
        Job {
            name: format!("j{name}"),
            command: String::new(),
            invocation_script: None,
            env: Default::default(),
            cancel_on_blocking_job_failure: true,
            resource_requirements: None,
            failure_handler: None,
            scheduler: None,
            depends_on,
            input_files,
            output_files,
            input_user_data: vec![],
            output_user_data: vec![],
            stdio: None,
            priority: None,
            labels: vec![],
        }
    }

    fn file(name: usize) -> File {
        File {
            name: format!("f{name}"),
            path: String::new(),
            identifier: None,
            st_mtime: None,
            is_input: true,
            is_output: true,
        }
    }

    #[test]
    fn jobs_come_by_level_and_keep_their_order_inside() {
        let jobs = vec![
            job(0, vec![2], vec![], vec![]),
            job(1, vec![], vec![], vec![]),
            job(2, vec![1], vec![], vec![]),
            job(3, vec![], vec![], vec![]),
        ];
        let order = order(Edges { jobs: &jobs, files: 0, user_data: 0 }).ok().unwrap();
        assert_eq!(order.jobs, [1, 3, 2, 0]);
        assert_eq!(order.level_ends, [2, 3, 4]);
        let jobs = order.apply(jobs);
        assert_eq!(jobs[3].depends_on, [2]);
        assert_eq!(jobs[2].depends_on, [0]);
    }

    #[test]
    fn a_cycle_is_told_with_its_reasons() {
        let jobs =
            vec![job(0, vec![], vec![], vec![]), job(1, vec![2, 0], vec![], vec![0]), job(2, vec![], vec![0], vec![])];
        let cycle = order(Edges { jobs: &jobs, files: 1, user_data: 0 }).err().unwrap();
        let (message, help) = cycle.describe(&jobs, &[file(0)], &[]);
        assert_eq!(message, "these jobs wait for each other: `j1` → `j2` → `j1`");
        assert_eq!(help, "`j1` depends_on `j2`, `j2` reads the file `f0` of `j1`");
        assert_eq!(cycle.first_job(), 1);
    }

    #[test]
    fn a_job_that_reads_what_it_writes_is_a_cycle() {
        let jobs = vec![job(0, vec![], vec![0], vec![0])];
        let cycle = order(Edges { jobs: &jobs, files: 1, user_data: 0 }).err().unwrap();
        assert_eq!(cycle.describe(&jobs, &[file(0)], &[]).1, "`j0` reads the file `f0` of `j0`");
    }

    proptest! {
        #[test]
        fn a_graph_has_an_order_or_a_cycle(
            edges in prop::collection::vec((0_u32..12, 0_u32..12, 0_u32..3), 0..30),
        ) {
            let mut jobs: Vec<Job> = (0..12).map(|index| job(index, vec![], vec![], vec![])).collect();
            for (a, b, kind) in edges {
                match kind {
                    0 => jobs[a as usize].depends_on.push(b),
                    1 => jobs[a as usize].input_files.push(b % 4),
                    _ => jobs[a as usize].output_files.push(b % 4),
                }
            }
            match order(Edges { jobs: &jobs, files: 4, user_data: 0 }) {
                Ok(order) => {
                    let ordered = order.apply(jobs);
                    for (index, job) in ordered.iter().enumerate() {
                        let level = order.level_ends.partition_point(|end| *end <= index);
                        let start = if level == 0 { 0 } else { order.level_ends[level - 1] };
                        prop_assert!(job.depends_on.iter().all(|before| (*before as usize) < start));
                    }
                }
                Err(cycle) => {
                    let follows = |a: &Thing, b: &Thing| match (*a, *b) {
                        (Thing::Job(a), Thing::Job(b)) => jobs[a].depends_on.contains(&(b as u32)),
                        (Thing::Job(a), Thing::File(b)) => jobs[a].input_files.contains(&(b as u32)),
                        (Thing::File(a), Thing::Job(b)) => jobs[b].output_files.contains(&(a as u32)),
                        _ => false,
                    };
                    let length = cycle.things.len();
                    for index in 0..length {
                        prop_assert!(follows(&cycle.things[index], &cycle.things[(index + 1) % length]));
                    }
                }
            }
        }
    }
}
