//! What the command lines of `identity import` and `identity export` hold.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Where to import from.
#[derive(Clone, Debug, Subcommand)]
pub(in crate::cli) enum ImportAction {
    /// From the PostgreSQL of the old system, whose tables Prisma made
    ///
    /// Reads "users" and "tenants" (or "User" and "Tenant") as they are at one moment, and changes nothing
    /// there.
    Prisma {
        /// The old database: postgres://… A command line can be read by all users of the machine; use the
        /// variable where the URL holds a password [IDENTITY_IMPORT_FROM]
        #[arg(long, value_name = "URL")]
        from: Option<String>,

        #[command(flatten)]
        arguments: ImportArguments,
    },
    /// From a file of JSON lines, as `identity export` writes it
    Jsonl {
        /// The file, or - for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,

        #[command(flatten)]
        arguments: ImportArguments,
    },
}

impl ImportAction {
    pub(in crate::cli) fn arguments(&self) -> &ImportArguments {
        match self {
            Self::Prisma { arguments, .. } | Self::Jsonl { arguments, .. } => arguments,
        }
    }
}

/// How to import.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct ImportArguments {
    /// Read and check everything, report what would be refused, and write nothing into the database
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,

    /// Import hashes up to this bcrypt cost, 16 at most, instead of the configured one plus two. Refusals of the
    /// users of dearer ones take longer than others, which tells that these accounts exist
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(4..=16))]
    pub(in crate::cli) allow_cost: Option<u32>,

    /// Where to list the rows that were refused, if any, or - for standard output
    #[arg(long, value_name = "FILE", default_value = "identity-import-refused.jsonl")]
    pub(in crate::cli) report: PathBuf,

    /// Where to list the ids that were no UUIDs, with those that took their place, if any, or - for
    /// standard output
    #[arg(long, value_name = "FILE", default_value = "identity-import-mapping.jsonl")]
    pub(in crate::cli) mapping: PathBuf,
}

/// Where to export to.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct ExportArguments {
    /// The file, or - for standard output
    #[arg(value_name = "FILE")]
    pub(in crate::cli) file: Option<PathBuf>,

    /// On SQLite, give up when the write-ahead log has grown by so many MiB since the export began: it keeps all
    /// changes until the export ends
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub(in crate::cli) log_limit: u32,
}
