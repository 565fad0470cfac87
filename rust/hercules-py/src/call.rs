//! Long calls: detach, compute on another thread, and wake often enough to see Ctrl-C and report progress.

use crate::error::{CoreError, InternalError};
use hercules_core::Result;
use hercules_core::control::Control;
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How often a waiting call looks for signals: well inside the promised 200 ms.
const WAKE: Duration = Duration::from_millis(40);

/// Outcome of [`watched`]: the work's own result and whether Ctrl-C cut it short.
pub struct Watched<R> {
    pub result: R,
    pub interrupted: bool,
}

/// Run `work` detached from the interpreter while this thread, the one that Python called, polls for signals and
/// calls `progress(done, total)` when the count changed.
///
/// On Ctrl-C the work is asked to stop, its result so far is returned and `interrupted` is set. Any other exception
/// (from a signal handler or from `progress`) stops the work too and is raised. A panic becomes `InternalError`.
pub fn watched<R: Send>(
    py: Python<'_>,
    progress: Option<&Py<PyAny>>,
    total: usize,
    work: impl FnOnce(&Control) -> R + Send,
) -> PyResult<Watched<R>> {
    watched_with(py, progress, total, |_, _| Ok(()), work)
}

/// [`watched`], with `look` called at each waking, before `progress`, and once more when the work has ended, however
/// it ended; its error stops the work too.
pub fn watched_with<R: Send>(
    py: Python<'_>,
    progress: Option<&Py<PyAny>>,
    total: usize,
    mut look: impl FnMut(Python<'_>, &Control) -> PyResult<()>,
    work: impl FnOnce(&Control) -> R + Send,
) -> PyResult<Watched<R>> {
    let control = Control::new();
    let finished = AtomicBool::new(false);
    let waiter = thread::current();
    let mut reported = 0;
    let mut failure: Option<PyErr> = None;
    let outcome = thread::scope(|scope| {
        let handle = scope.spawn(|| {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&control)));
            finished.store(true, Ordering::Release);
            waiter.unpark();
            result
        });
        loop {
            py.detach(|| thread::park_timeout(WAKE));
            if finished.load(Ordering::Acquire) {
                break;
            }
            if failure.is_none() {
                let done = control.done();
                let told = look(py, &control).and_then(|()| match progress {
                    Some(callback) if done != reported => callback.call1(py, (done, total)).map(|_| ()),
                    _ => Ok(()),
                });
                reported = done;
                failure = told.and_then(|()| py.check_signals()).err();
                if failure.is_some() {
                    control.cancel();
                }
            }
        }
        py.detach(|| handle.join())
    });
    let result = match outcome {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) | Err(panic) => return Err(panicked(panic.as_ref())),
    };
    let interrupted = match failure {
        None => false,
        Some(error) if error.is_instance_of::<PyKeyboardInterrupt>(py) => true,
        Some(error) => return Err(error),
    };
    look(py, &control)?;
    if let (Some(callback), false) = (progress, interrupted)
        && control.done() != reported
    {
        callback.call1(py, (control.done(), total))?;
    }
    Ok(Watched { result, interrupted })
}

/// [`watched`], but for `brief` work, of a few milliseconds, without the thread that a look at signals needs.
pub fn watched_unless<R: Send>(
    brief: bool,
    py: Python<'_>,
    progress: Option<&Py<PyAny>>,
    total: usize,
    work: impl FnOnce(&Control) -> R + Send,
) -> PyResult<Watched<R>> {
    if !brief {
        return watched(py, progress, total, work);
    }
    let control = Control::new();
    let outcome = py.detach(|| std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&control))));
    let result = outcome.map_err(|panic| panicked(panic.as_ref()))?;
    if let Some(callback) = progress
        && control.done() > 0
    {
        callback.call1(py, (control.done(), total))?;
    }
    Ok(Watched { result, interrupted: false })
}

/// [`watched`] for work of which no part is worth keeping: Ctrl-C raises `KeyboardInterrupt`.
pub fn watched_alone<R: Send>(py: Python<'_>, work: impl FnOnce(&Control) -> Result<R> + Send) -> PyResult<R> {
    let watched = watched(py, None, 1, work)?;
    if watched.interrupted {
        return Err(PyKeyboardInterrupt::new_err(()));
    }
    Ok(watched.result.map_err(CoreError)?)
}

fn panicked(panic: &(dyn Any + Send)) -> PyErr {
    let text = panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "unknown cause".to_owned());
    InternalError::new_err(format!("the core stopped unexpectedly ({text}); please report this"))
}
