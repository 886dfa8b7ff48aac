//! What commands ask whoever runs them: a password, and whether something is really to be deleted.

use std::error::Error;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::fd::AsFd as _;

use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex, Termios};
use zeroize::Zeroizing;

use super::Misuse;
use super::arguments::Consent;
use super::table::printable;
use crate::domain::Password;

/// What Ctrl-C sends where it sends no signal.
const INTERRUPT: u8 = 0x03;

type Failure = Box<dyn Error + Send + Sync>;

/// A new password: asked for twice on a terminal, which does not show it; else the first line of standard input.
///
/// # Errors
/// When there is none, it is longer than any password, or the two are not the same.
pub(super) fn new_password() -> Result<Password, Failure> {
    if !io::stdin().is_terminal() {
        return password(read_line()?);
    }
    let first = ask_hidden("Password: ")?;
    let second = ask_hidden("The same password again: ")?;
    if first != second {
        return Err("the two passwords are not the same".into());
    }
    password(first)
}

fn password(line: Zeroizing<Vec<u8>>) -> Result<Password, Failure> {
    let text = std::str::from_utf8(&line).map_err(|_| "the password must be UTF-8")?;
    Password::new(text.to_owned()).map_err(|problem| format!("the password {problem}").into())
}

/// Asks for a line that the terminal does not show.
fn ask_hidden(question: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let hidden = Hidden::begin()?;
    write!(io::stderr(), "{question}")?;
    let line = read_line();
    drop(hidden);
    // The end of the line was not shown either.
    writeln!(io::stderr())?;
    let line = line?;
    if line.last() == Some(&INTERRUPT) {
        return Err("interrupted".into());
    }
    Ok(line)
}

/// The first line of standard input, without its end. Read byte by byte, so that no buffer keeps it.
fn read_line() -> io::Result<Zeroizing<Vec<u8>>> {
    // Never grown, which would leave a copy behind.
    const MOST: usize = Password::MAX_BYTES + 2;
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut line = Zeroizing::new(Vec::with_capacity(MOST));
    let mut byte = Zeroizing::new([0]);
    while line.len() < MOST && input.read(byte.as_mut_slice())? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
        if byte[0] == INTERRUPT && io::stdin().is_terminal() {
            break;
        }
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(line)
}

/// A terminal that shows nothing of what is typed. As before when dropped.
struct Hidden {
    before: Termios,
}

impl Hidden {
    fn begin() -> io::Result<Self> {
        let before = termios::tcgetattr(io::stdin())?;
        let mut changed = before.clone();
        // Ctrl-C must not end the program before the terminal is as it was: it ends the line instead.
        changed.local_modes -= LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ISIG;
        changed.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
        termios::tcsetattr(io::stdin(), OptionalActions::Flush, &changed)?;
        Ok(Self { before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing any more.
        _ = termios::tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}

/// Makes sure, before anything is done, that consent is given or can be asked for.
///
/// # Errors
/// [`Misuse`].
pub(super) fn require_consent(consent: Consent) -> Result<(), Misuse> {
    if consent.yes || io::stdin().is_terminal() {
        return Ok(());
    }
    Err(Misuse("where standard input is no terminal, what deletes data needs --yes".to_owned()))
}

/// Asks whether what `deed` says is to be done, unless that was said already: by typing `proof`.
///
/// # Errors
/// When the answer is another one.
pub(super) fn confirm(consent: Consent, deed: &str, proof: &str) -> Result<(), Failure> {
    if consent.yes {
        return Ok(());
    }
    write!(io::stderr(), "This {deed}. Type {} to go on: ", printable(proof))?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if answer.trim() == proof { Ok(()) } else { Err("not confirmed; nothing was deleted".into()) }
}
