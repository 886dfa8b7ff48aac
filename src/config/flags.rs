//! The flags that stand for environment variables, and the part of `--help` that explains both.

use std::collections::HashMap;
use std::fmt;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::declared::ALL;
use super::setting::Declared;

/// The width of the column with the names of secrets, and that of the one beside it.
const SECRETS_COLUMNS: (usize, usize) = (21, 77);

/// What stands on a command line for settings, by their variables.
///
/// A flag is named as its variable, in kebab case and without `IDENTITY_`. `Debug` shows no value: the database's
/// URL may hold a password.
#[derive(Clone, Default)]
pub struct Flags(HashMap<&'static str, String>);

impl Flags {
    pub(super) fn get(&self, setting: &dyn Declared) -> Option<&str> {
        self.0.get(setting.variable()).map(String::as_str)
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        let arguments = ALL.iter().filter_map(|setting| {
            let (flag, value) = setting.flag()?;
            let (variable, meaning, default) = (setting.variable(), setting.meaning(), setting.default());
            let help = format!("{meaning} [{variable}; default: {default}]");
            Some(Arg::new(variable).long(flag).value_name(value).global(true).help(help))
        });
        command.next_help_heading("Settings (flag, else variable, else default)").args(arguments)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let with_flag = ALL.iter().filter(|setting| setting.flag().is_some());
        let given = with_flag.filter_map(|setting| {
            let variable = setting.variable();
            matches.get_one::<String>(variable).map(|text| (variable, text.clone()))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.extend(Self::from_arg_matches(matches)?.0);
        Ok(())
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flags(…)")
    }
}

/// What `--help` says of the settings that have no flag, two columns.
pub fn secrets_help() -> String {
    let (names, width) = SECRETS_COLUMNS;
    let mut text = String::new();
    for setting in ALL.iter().filter(|setting| setting.flag().is_none()) {
        let meaning = setting.meaning();
        let lines = wrapped(&meaning, width);
        let mut name = setting.variable();
        if name.len() >= names && !lines.is_empty() {
            text += &format!("  {name}\n");
            name = "";
        }
        for line in lines {
            text += &format!("  {name:<names$}{line}\n");
            name = "";
        }
    }
    text
}

/// The words of `text` in lines of at most `width` characters.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
