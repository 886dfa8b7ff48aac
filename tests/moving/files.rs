//! What imports and exports write to, and what they leave alone.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::process::{Command, Stdio};

use crate::fixture::{Place, Run, file, tenant, user, with};
use crate::support::service::{Engine, MASTER_KEY, on_both_databases};

on_both_databases!(
    a_pipe_gets_what_is_written_to_it,
    a_link_to_standard_output_is_written_to_and_stays,
    the_input_and_the_reports_are_not_written_over,
);

const REPORT: &str = "identity-import-refused.jsonl";

/// A database with a tenant and a user, and `in.jsonl` with a row that is refused and one with another id.
async fn place(engine: Engine) -> Place {
    let place = Place::new(engine).await;
    place.import_lines(&[tenant(1), user(1, 1)]).await.ok();
    let refused = with(user(2, 1), "email", "nobody");
    let renamed = with(user(3, 1), "id", "an id of another system");
    fs::write(place.path("in.jsonl"), file(&[tenant(1), refused, renamed])).unwrap();
    place
}

/// Makes a device in the folder, as a stand-in for that of the machine. Only root may.
fn device(place: &Place, name: &str, numbers: [&str; 2]) -> bool {
    let made = Command::new("mknod").arg(place.path(name)).arg("c").args(numbers).output().unwrap();
    made.status.success() && fs::OpenOptions::new().write(true).open(place.path(name)).is_ok()
}

fn is_device(place: &Place, name: &str) -> bool {
    fs::symlink_metadata(place.path(name)).unwrap().file_type().is_char_device()
}

fn names(place: &Place) -> Vec<String> {
    let entries = fs::read_dir(place.database.folder.path()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Asserts that a command was refused as wrong, for this reason.
fn assert_misuse(run: &Run, problem: &str) {
    assert_eq!((run.code, run.out.as_str()), (Some(64), ""), "{run:?}");
    assert!(run.err.contains(problem), "{problem}: {run:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_written_to_and_stays() {
    let place = place(Engine::Sqlite).await;
    if !device(&place, "null", ["1", "3"]) || !device(&place, "full", ["1", "7"]) {
        eprintln!("left out: devices can only be made by root");
        return;
    }
    let reports = ["--report", "null", "--mapping", "null"];
    for more in [&["--dry-run"][..], &[]] {
        place.run(&[&["import", "jsonl", "in.jsonl"], &reports[..], more].concat()).await.ok();
        assert!(is_device(&place, "null"), "{more:?}");
    }
    assert_eq!(place.run(&["export", "null"]).await.ok(), "");
    assert!(is_device(&place, "null"));
    for arguments in [&["export", "full"][..], &["import", "jsonl", "in.jsonl", "--report", "full"]] {
        let run = place.run(arguments).await;
        assert_eq!(run.code, Some(1), "{run:?}");
        assert!(run.err.contains("cannot write full: "), "{run:?}");
        assert!(is_device(&place, "full"), "{arguments:?}");
    }
}

async fn a_pipe_gets_what_is_written_to_it(engine: Engine) {
    let place = place(engine).await;
    let pipe = place.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let read = async |arguments: &[&str]| {
        let reader = tokio::process::Command::new("cat").arg(&pipe).kill_on_drop(true).output();
        let (read, run) = tokio::join!(reader, place.run(arguments));
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
        (String::from_utf8(read.unwrap().stdout).unwrap(), run.ok())
    };
    let (exported, out) = read(&["export", "pipe"]).await;
    assert_eq!((exported, out.as_str()), (place.export().await, ""));
    let import = ["import", "jsonl", "in.jsonl", "--report", "pipe"];
    for more in [&["--dry-run"][..], &[]] {
        let (refused, _) = read(&[&import[..], more].concat()).await;
        assert!(refused.contains("bad_email") && refused.ends_with("}\n"), "{refused}");
    }
    // Its reader learns as well that nothing was refused.
    fs::write(place.path("in.jsonl"), file(&[tenant(1)])).unwrap();
    assert_eq!(read(&import).await.0, "");
}

async fn a_link_to_standard_output_is_written_to_and_stays(engine: Engine) {
    let place = place(engine).await;
    symlink("/dev/stdout", place.path("out")).unwrap();
    let expected = place.export().await;
    assert_eq!(place.run(&["export", "out"]).await.ok(), expected);
    // Where it is a regular file as well, which others write to, too.
    let log = fs::File::create(place.path("log")).unwrap();
    let mut command = place.command(&["export", "out"]);
    assert!(command.stdout(log).status().await.unwrap().success());
    assert_eq!(fs::read_to_string(place.path("log")).unwrap(), expected);

    for report in ["out", "-"] {
        let run = place.run(&["import", "jsonl", "in.jsonl", "--dry-run", "--report", report]).await;
        assert!(run.out.contains("bad_email") && run.out.lines().count() == 1, "{run:?}");
        assert!(run.err.contains("listed in standard output") && run.err.contains("users: "), "{run:?}");
    }
    assert!(fs::symlink_metadata(place.path("out")).unwrap().is_symlink());
}

async fn the_input_and_the_reports_are_not_written_over(engine: Engine) {
    let place = place(engine).await;
    let input = fs::read_to_string(place.path("in.jsonl")).unwrap();
    fs::hard_link(place.path("in.jsonl"), place.path("same")).unwrap();
    for name in ["in.jsonl", "./in.jsonl", "same"] {
        for argument in ["--report", "--mapping"] {
            let run = place.run(&["import", "jsonl", "in.jsonl", argument, name]).await;
            assert_misuse(&run, "is the input");
        }
        let mut command = place.command(&["import", "jsonl", "-", "--report", name]);
        let from = fs::File::open(place.path("in.jsonl")).unwrap();
        let output = command.stdin(Stdio::from(from)).output().await.unwrap();
        assert_eq!(output.status.code(), Some(64), "{output:?}");
    }
    let both = ["import", "jsonl", "in.jsonl", "--report", "one", "--mapping", "./one"];
    assert_misuse(&place.run(&both).await, "is the report of refused rows");
    assert_misuse(&place.run(&["export", "."]).await, "is a folder");
    assert_eq!(fs::read_to_string(place.path("in.jsonl")).unwrap(), input);

    // The file of a master key that a setting names.
    fs::write(place.path("key"), MASTER_KEY).unwrap();
    for (arguments, variable) in [
        (&["export", "key"][..], "key"),
        (&["import", "jsonl", "in.jsonl", "--report", "key"], "./key"),
        (&["export", "key", "--master-key-file", "key"], ""),
    ] {
        let mut command = place.command(arguments);
        let output = command.env("IDENTITY_MASTER_KEY_FILE", variable).output().await.unwrap();
        assert_eq!(output.status.code(), Some(64), "{output:?}");
    }
    assert_eq!(fs::read_to_string(place.path("key")).unwrap(), MASTER_KEY);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_and_its_key_are_not_written_over() {
    let place = place(Engine::Sqlite).await;
    fs::write(place.path("identity.db.key"), MASTER_KEY).unwrap();
    fs::hard_link(place.path("identity.db"), place.path("same")).unwrap();
    let before = place.export().await;
    for (name, what) in [
        ("identity.db", "is the database"),
        ("./identity.db", "is the database"),
        ("same", "is the database"),
        ("identity.db.key", "is the master key"),
        // There is none now.
        ("identity.db-journal", "is a file of the database"),
        ("identity.db-wal", "is a file of the database"),
    ] {
        for arguments in [
            &["export", name][..],
            &["import", "jsonl", "in.jsonl", "--report", name],
            &["import", "jsonl", "in.jsonl", "--mapping", name],
            &["import", "jsonl", "in.jsonl", "--dry-run", "--report", name],
        ] {
            assert_misuse(&place.run(arguments).await, what);
        }
    }
    assert_eq!(fs::read_to_string(place.path("identity.db.key")).unwrap(), MASTER_KEY);
    assert_eq!(place.export().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_replaces_only_a_report() {
    let place = place(Engine::Sqlite).await;
    let notes = "{\"type\":\"user\"}\nwhat else there is\n";
    fs::write(place.path("notes"), notes).unwrap();
    for argument in ["--report", "--mapping"] {
        let run = place.run(&["import", "jsonl", "in.jsonl", argument, "notes"]).await;
        assert_misuse(&run, "notes was not written by an import");
    }
    assert_eq!(fs::read_to_string(place.path("notes")).unwrap(), notes);
    // Not in place of each other either: the ids are needed for longer.
    place.run(&["import", "jsonl", "in.jsonl"]).await.ok();
    let run = place.run(&["import", "jsonl", "in.jsonl", "--report", "identity-import-mapping.jsonl"]).await;
    assert_misuse(&run, "was not written by an import");
    fs::write(place.path("empty"), "").unwrap();
    for report in [REPORT, "empty"] {
        place.run(&["import", "jsonl", "in.jsonl", "--report", report]).await.ok();
        assert_eq!(place.report(report).len(), 1, "{report}");
        assert_eq!(fs::metadata(place.path(report)).unwrap().mode() & 0o777, 0o600);
    }
    // Where nothing is refused, an earlier report goes, and an empty file stays.
    fs::write(place.path("empty"), "").unwrap();
    fs::write(place.path("in.jsonl"), file(&[tenant(1)])).unwrap();
    for report in [REPORT, "empty"] {
        place.run(&["import", "jsonl", "in.jsonl", "--report", report]).await.ok();
    }
    assert!(!place.path(REPORT).exists() && place.path("empty").exists());
    assert!(!names(&place).iter().any(|name| name.ends_with(".partial")), "{:?}", names(&place));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_a_file_is_not_followed() {
    let place = place(Engine::Sqlite).await;
    for target in ["victim", "absent"] {
        fs::write(place.path("victim"), "").unwrap();
        symlink(target, place.path("link")).unwrap();
        for arguments in [&["export", "link"][..], &["import", "jsonl", "in.jsonl", "--report", "link"]] {
            assert_misuse(&place.run(arguments).await, "is a symbolic link");
        }
        assert_eq!(fs::read_to_string(place.path("victim")).unwrap(), "");
        assert!(!place.path("absent").exists());
        fs::remove_file(place.path("link")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_put_beside_an_export_is_not_used() {
    let place = place(Engine::Sqlite).await;
    let expected = place.export().await;
    fs::write(place.path("victim"), "theirs").unwrap();
    fs::write(place.path("one.partial"), "theirs").unwrap();
    fs::set_permissions(place.path("one.partial"), Permissions::from_mode(0o666)).unwrap();
    symlink("victim", place.path("other.partial")).unwrap();
    // What was there before is replaced, not written over.
    fs::write(place.path("other"), "an export of before").unwrap();
    fs::set_permissions(place.path("other"), Permissions::from_mode(0o666)).unwrap();
    fs::hard_link(place.path("other"), place.path("another name of other")).unwrap();
    for name in ["one", "other"] {
        place.run(&["export", name]).await.ok();
        assert_eq!(fs::read_to_string(place.path(name)).unwrap(), expected);
        assert_eq!(fs::metadata(place.path(name)).unwrap().mode() & 0o777, 0o600);
    }
    for name in ["victim", "one.partial", "other.partial"] {
        assert_eq!(fs::read_to_string(place.path(name)).unwrap(), "theirs", "{name}");
    }
    assert_eq!(fs::read_to_string(place.path("another name of other")).unwrap(), "an export of before");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_fails_leaves_the_one_before_it() {
    // SQLite's file would break the limit first.
    let place = place(Engine::Postgres).await;
    fs::write(place.path("out.jsonl"), "an export of before").unwrap();
    let before = names(&place);
    let mut shell = tokio::process::Command::new("/bin/sh");
    // Files of at most 512 bytes, without the signal that would end the program.
    let limited = "trap '' XFSZ; ulimit -f 1; exec \"$0\" export out.jsonl";
    shell.args(["-c", limited, env!("CARGO_BIN_EXE_identity")]);
    shell.env_clear().env("DATABASE_URL", &place.database.url).current_dir(place.database.folder.path());
    let output = shell.output().await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write out.jsonl: "), "{output:?}");
    assert_eq!(fs::read_to_string(place.path("out.jsonl")).unwrap(), "an export of before");
    assert_eq!(names(&place), before);
}
