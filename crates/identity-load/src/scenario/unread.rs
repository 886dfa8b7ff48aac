//! Large replies that nobody reads: they shall be bounded, and gone when the deadline of their calls has passed.
//!
//! The connections stay open, and answer pings, until others have ended.

use std::error::Error;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use identity::proto::v1 as proto;
use prost::Message as _;
use prost_types::FieldMask;
use tokio::time::{sleep, sleep_until};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Status};

use super::{Stage, process};
use crate::calls::retry_delay;
use crate::raw::{Call, Connection};
use crate::report::{Attacked, Report};
use crate::target::{Origin, Target};
use crate::timeline::Timeline;
use crate::users::User;
use crate::{arguments, memory};

/// Look-ups of others each second.
const LOOKUPS: u32 = 200;

/// The deadline of the calls that nobody reads.
const TIMEOUT: &str = "2S";

/// Events on a page, each as large as a user can make it: some 1.8 kB.
const EVENTS: u32 = 1_000;

/// Bytes of a name, as many as it may have: 100 characters of four bytes.
const LONG_NAME: &str = "😀";
const NAME_CHARACTERS: usize = 100;

/// How many updates make the events at once.
const AT_ONCE: usize = 4;

pub(super) async fn run(stage: &Stage, arguments: &arguments::Unread) -> Result<Report, Box<dyn Error>> {
    let attack = &arguments.attack;
    let process = process(attack)?;
    let lookups = stage.lookups().await?;
    let caller = stage.users.first().ok_or("an attack needs a user")?;
    let call = if arguments.reflection {
        describe(&caller.bearer)?
    } else {
        make_events(stage, caller).await?;
        list_events(&caller.bearer)?
    };

    let timeline = Timeline::begin(attack.seconds);
    let calls = vec![call; arguments.streams as usize];
    let (lookups, (opened, ended), memory) = tokio::join!(
        timeline.beside(LOOKUPS, lookups),
        ask(stage.target, attack.attacker, &calls, arguments.connections, timeline),
        memory::watch(process, timeline),
    );
    let report = Attacked::new(attack.seconds, [("look-ups", lookups)], memory?)
        .counted("streams opened", opened)
        .counted("streams ended by the service", ended);
    Ok(Report::Attacked(Box::new(report)))
}

/// Makes the calls on so many connections when the attack begins. Returns how many streams that were, and how
/// many of them the service had ended when the attack was over.
async fn ask(
    target: Target,
    origin: Origin,
    calls: &[Call],
    connections: u32,
    timeline: Timeline,
) -> (u64, u64) {
    let end = timeline.attack_begins().await;
    let mut open = Vec::new();
    for _ in 0..connections {
        // One that is refused asks for nothing.
        let Ok(mut connection) = Connection::open(target, origin, Some(0)).await else { continue };
        let streams = connection.open_streams(calls).await.map_or(0, |streams| streams.len() as u64);
        open.push((connection, streams));
    }
    sleep_until(end.into()).await;
    let opened = open.iter().map(|(_, streams)| streams).sum();
    // With a connection, all of its streams end.
    let ended_on = |(connection, streams): &(Connection, u64)| {
        if connection.has_ended() { *streams } else { connection.streams_ended() }
    };
    let ended = open.iter().map(ended_on).sum();
    sleep_until(timeline.end().into()).await;
    (opened, ended)
}

fn list_events(bearer: &MetadataValue<Ascii>) -> Result<Call, Box<dyn Error>> {
    let list = proto::ListAuditEventsRequest {
        page_size: i32::try_from(EVENTS)?,
        ..proto::ListAuditEventsRequest::default()
    };
    let metadata = [("grpc-timeout", TIMEOUT), ("authorization", bearer.to_str()?)];
    Ok(Call::new("/identity.v1.AuditService/ListAuditEvents", &metadata, &list.encode_to_vec()))
}

/// Asks the reflection service for the files that describe the directory.
fn describe(bearer: &MetadataValue<Ascii>) -> Result<Call, Box<dyn Error>> {
    const SYMBOL: &str = "identity.v1.DirectoryService";
    // `file_containing_symbol` of grpc.reflection.v1.ServerReflectionRequest.
    let mut message = vec![4 << 3 | 2, u8::try_from(SYMBOL.len())?];
    message.extend_from_slice(SYMBOL.as_bytes());
    let metadata = [("grpc-timeout", TIMEOUT), ("authorization", bearer.to_str()?)];
    Ok(Call::new("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", &metadata, &message))
}

/// Lets `user` change both names as often as there are events on a page, from one long one to another.
async fn make_events(stage: &Stage, user: &User) -> Result<(), Box<dyn Error>> {
    let connections = stage.connections().await?;
    let connections = &connections;
    stream::iter(0..EVENTS)
        .map(|index| async move {
            let name = |first: &str| first.to_owned() + &LONG_NAME.repeat(NAME_CHARACTERS - first.len());
            let (first_name, last_name) = (name(&index.to_string()), name(&(index + 1).to_string()));
            let update = proto::UpdateUserRequest {
                user: Some(proto::User {
                    id: user.id.clone(),
                    first_name,
                    last_name,
                    ..proto::User::default()
                }),
                update_mask: Some(FieldMask { paths: vec!["first_name".to_owned(), "last_name".to_owned()] }),
                ..proto::UpdateUserRequest::default()
            };
            loop {
                let mut request = Request::new(update.clone());
                request.metadata_mut().insert("authorization", user.bearer.clone());
                match connections.directory(index.into()).update_user(request).await {
                    Ok(_) => return Ok::<(), Status>(()),
                    Err(status) => sleep(retry_delay(&status).ok_or(status)?.min(MAX_DELAY)).await,
                }
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    Ok(())
}

/// The longest that one update waits before it is tried again.
const MAX_DELAY: Duration = Duration::from_secs(1);
