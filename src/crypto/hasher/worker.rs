//! The threads that hash.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::Cost;
use super::engine::{Computation, Engine};
use super::queue::{Place, Queue};
use super::task::{Step, Task, dummy};
use crate::crypto::scheme::Digest;

/// Starts a thread that takes jobs from `queue` until that is closed.
pub(super) fn spawn(index: usize, queue: Arc<Queue>, mut engine: impl Engine) -> std::io::Result<()> {
    std::thread::Builder::new().name(format!("hash-{index}")).spawn(move || {
        lower_priority();
        // One cheap computation, so that the very first callers can be told how long the queue is.
        guarded(|| _ = compute(&queue, &mut engine, &dummy(Cost::MIN)));
        while let Some((task, place)) = queue.pop() {
            guarded(|| run(task, place, &queue, &mut engine));
        }
    })?;
    Ok(())
}

/// Hashes get what the rest of the process, and of the machine, leaves over.
fn lower_priority() {
    // Linux counts niceness by thread, whatever POSIX says; elsewhere this would slow the process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(19) {
        tracing::warn!(%error, "password hashing runs at normal priority");
    }
}

fn run(task: Task, place: Place<'_>, queue: &Queue, engine: &mut impl Engine) {
    let mut step = task.start();
    loop {
        match step {
            Step::Compute(task, computation) => {
                let digest = compute(queue, engine, &computation);
                step = task.step(&digest);
            }
            Step::Done(outcome) => {
                // Before the answer: who has it and asks again must find the thread free.
                drop(place);
                return outcome.send();
            }
        }
    }
}

fn compute(queue: &Queue, engine: &mut impl Engine, computation: &Computation) -> Digest {
    let started = Instant::now();
    let digest = engine.compute(computation);
    queue.measured(computation.cost.rounds(), started.elapsed());
    digest
}

/// Runs `work`. A panic in it drops the task, whose caller is told by the closed channel; it costs
/// neither the thread nor any other job.
fn guarded(work: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(work)).is_err() {
        tracing::error!("a password hash was given up after a panic");
    }
}
