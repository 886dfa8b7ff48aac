//! What is no request in order is refused by name, and does the server no harm.

use identity::proto::v1::{GetUserByEmailRequest, LoginRequest, RegisterRequest};
use prost::Message as _;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Status};

use crate::database::{census, execute};
use crate::fixture::{call_raw, refusal, refused, registered};
use crate::support::raw::{RawClient, Reply, frame, grpc};
use crate::support::service::{
    Engine, PASSWORD, TestService, bad_fields, on_both_databases, reason, registration,
};

on_both_databases!(
    every_empty_field_is_named_at_once,
    a_registration_that_breaks_a_rule_names_its_field,
    joiners_stay_where_an_emoji_or_a_script_needs_them,
    who_has_an_invisible_character_from_before_logs_in_and_is_found,
    a_login_names_what_cannot_be_an_email_or_a_password,
    what_is_no_message_is_refused_by_every_rpc,
    fields_of_tomorrow_are_passed_over,
    what_is_far_too_large_is_refused,
    whatever_is_sent_is_answered_and_the_service_goes_on,
);

const LOGIN: &str = "/identity.v1.IdentityService/Login";

fn named(status: &Status) -> (Code, String, Vec<String>) {
    (status.code(), reason(status), bad_fields(status))
}

fn invalid(fields: &[&str]) -> (Code, String, Vec<String>) {
    let fields = fields.iter().map(|field| (*field).to_owned()).collect();
    (Code::InvalidArgument, "INVALID_FIELDS".to_owned(), fields)
}

/// The full name of a method of the identity service.
fn method(name: &str) -> String {
    format!("identity.v1.IdentityService/{name}")
}

async fn every_empty_field_is_named_at_once(engine: Engine) {
    let service = TestService::start(engine).await;
    let status = service.client().register(RegisterRequest::default()).await.unwrap_err();
    assert_eq!(named(&status), invalid(&["email", "password", "first_name", "last_name", "tenant_name"]));
    let status = service.client().login("", "").await.unwrap_err();
    assert_eq!(named(&status), invalid(&["email", "password"]));
    registered(&service, "ada@example.com").await;
}

async fn a_registration_that_breaks_a_rule_names_its_field(engine: Engine) {
    let service = TestService::start(engine).await;
    type Change = fn(&mut RegisterRequest);
    let changes: [(&[&str], Change); 41] = [
        (&["email"], |request| request.email = "evemail".into()),
        (&["email"], |request| request.email = "eve@".into()),
        (&["email"], |request| request.email = " eve@example.com".into()),
        (&["email"], |request| request.email = "e\0ve@example.com".into()),
        (&["email"], |request| request.email = "eve@example.com\0".into()),
        (&["email"], |request| request.email = "eve@example.com\r\nBcc: bob@example.com".into()),
        (&["email"], |request| request.email = format!("{}@example.com", "a".repeat(65))),
        (&["email"], |request| request.email = format!("a@{}com", "example.".repeat(32))),
        (&["email"], |request| request.email = format!("a@{}", "\u{1f511}".repeat(60))),
        (&["email"], |request| request.email = "a".repeat(60_000)),
        (&["password"], |request| request.password = "1234567".into()),
        (&["password"], |request| request.password = "\u{1f511}".repeat(7)),
        (&["password"], |request| request.password = "x".repeat(1025)),
        (&["password"], |request| request.password = "\u{e9}".repeat(513)),
        (&["password"], |request| request.password = "Password1".into()),
        (&["password"], |request| request.password = "EVE@example.com".into()),
        (&["first_name"], |request| request.first_name = "x".repeat(101)),
        (&["first_name"], |request| request.first_name = "A\0da".into()),
        (&["first_name"], |request| request.first_name = " \t\u{3000}\n".into()),
        (&["last_name"], |request| request.last_name = "\u{1f511}".repeat(101)),
        (&["last_name"], |request| request.last_name = "Love\nlace".into()),
        // Composed from one character to two.
        (&["last_name"], |request| request.last_name = "\u{958}".repeat(51)),
        (&["tenant_name"], |request| request.tenant_name = "x".repeat(201)),
        (&["tenant_name"], |request| request.tenant_name = "Engines\u{7f}".into()),
        (&["tenant_name"], |request| request.tenant_name = "Engines\u{2028}of".into()),
        // Invisible characters, in the local part and in the domain, where no script needs them.
        (&["email"], |request| request.email = "e\u{200b}ve@example.com".into()),
        (&["email"], |request| request.email = "eve\u{2060}@example.com".into()),
        (&["email"], |request| request.email = "\u{feff}eve@example.com".into()),
        (&["email"], |request| request.email = "e\u{202e}ve@example.com".into()),
        (&["email"], |request| request.email = "e\u{200d}ve@example.com".into()),
        (&["email"], |request| request.email = "eve\u{fdd0}@example.com".into()),
        (&["email"], |request| request.email = "eve\u{e000}@example.com".into()),
        (&["email"], |request| request.email = "eve@ex\u{ad}ample.com".into()),
        (&["first_name"], |request| request.first_name = "\u{200b}".into()),
        (&["first_name"], |request| request.first_name = "Ada\u{202e}".into()),
        (&["last_name"], |request| request.last_name = "\u{2060}\u{feff} \u{3164}".into()),
        (&["last_name"], |request| request.last_name = "\u{f8ff}".into()),
        (&["tenant_name"], |request| request.tenant_name = "\u{200e}\u{2800}".into()),
        (&["tenant_name"], |request| request.tenant_name = "Engines\u{ffff}".into()),
        (&["request_id"], |request| request.request_id = "1".into()),
        (&["email", "password", "first_name", "last_name", "tenant_name", "request_id"], |request| {
            *request = RegisterRequest {
                email: "\0".into(),
                password: "\0".into(),
                first_name: "\0".into(),
                last_name: "\0".into(),
                tenant_name: "\0".into(),
                request_id: "\0".into(),
            };
        }),
    ];
    for (number, (fields, change)) in changes.into_iter().enumerate() {
        let mut request = registration("eve@example.com");
        change(&mut request);
        let sent = [request.email.clone(), request.password.clone()];
        let status = service.client().register(request).await.unwrap_err();
        assert_eq!(named(&status), invalid(fields), "change {number}");
        for secret in sent.iter().filter(|text| text.len() > 3) {
            assert!(!format!("{status:?}").contains(secret), "change {number} comes back");
        }
    }
    assert_eq!(census(&service.database), [0; 5]);
    registered(&service, "eve@example.com").await;
}

async fn joiners_stay_where_an_emoji_or_a_script_needs_them(engine: Engine) {
    let service = TestService::start(engine).await;
    let (persian, hindi) =
        ("\u{646}\u{627}\u{645}\u{647}\u{200c}\u{627}\u{6cc}", "\u{915}\u{94d}\u{200d}\u{937}");
    for word in [persian, hindi, "\u{1f469}\u{1f3fd}\u{200d}\u{1f4bb}", "\u{2764}\u{fe0f}\u{200d}\u{1f525}"] {
        let request = RegisterRequest {
            first_name: word.into(),
            last_name: format!("A\u{200b}da {word}"),
            tenant_name: word.into(),
            ..registration(&format!("{word}@example.com"))
        };
        let user = service.client().register(request.clone()).await.unwrap().user.unwrap();
        assert_eq!(user.email, request.email);
        assert_eq!((user.first_name, user.last_name), (request.first_name, request.last_name));
        service.client().login(&request.email, PASSWORD).await.unwrap();
    }
}

async fn who_has_an_invisible_character_from_before_logs_in_and_is_found(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = registered(&service, "ada@example.com").await;
    // As a version stored it that did not look for them.
    let email = "a\u{200b}da@example.com";
    execute(
        &service.database,
        &format!(
            "UPDATE users SET email = '{email}', first_name = '\u{2060}';
             UPDATE login_names SET email_normalized = '{email}';
             UPDATE tenants SET name = '\u{202e}x'"
        ),
    );
    let user = client.login(email, PASSWORD).await.unwrap().user.unwrap();
    assert_eq!((user.email.as_str(), user.first_name.as_str()), (email, "\u{2060}"));
    assert_eq!(client.get_user(Some(&ada.access_token), "").await.unwrap().user, Some(user.clone()));
    let mut request = Request::new(GetUserByEmailRequest { email: email.into() });
    request.metadata_mut().insert("authorization", format!("Bearer {}", ada.access_token).parse().unwrap());
    let found = client.directory.clone().get_user_by_email(request).await.unwrap();
    assert_eq!(found.into_inner().user, Some(user));
}

async fn a_login_names_what_cannot_be_an_email_or_a_password(engine: Engine) {
    let service = TestService::start(engine).await;
    registered(&service, "ada@example.com").await;
    let long = "x".repeat(1025);
    for (email, password, fields) in [
        ("ada@example.com", "", &["password"][..]),
        ("ada@example.com", &long, &["password"]),
        ("", PASSWORD, &["email"]),
        (&long, PASSWORD, &["email"]),
        ("ada@example.com\0", PASSWORD, &["email"]),
        ("ada", &long, &["email", "password"]),
    ] {
        let status = service.client().login(email, password).await.unwrap_err();
        assert_eq!(named(&status), invalid(fields));
    }
    // What registration would refuse may have been set under other rules.
    let short = service.client().login("ada@example.com", "x").await;
    assert_eq!(refusal(short), refused(Code::Unauthenticated, "LOGIN_FAILED"));
}

async fn what_is_no_message_is_refused_by_every_rpc(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = registered(&service, "ada@example.com").await;
    let mut authorized = MetadataMap::new();
    authorized.insert("authorization", format!("Bearer {}", ada.access_token).parse().unwrap());
    let whole = registration("eve@example.com").encode_to_vec();
    let cases: [(&str, Vec<u8>); 9] = [
        ("a field that ends too early", whole[..whole.len() - 1].to_vec()),
        ("a length without a text", vec![0x0a, 5]),
        ("a tag alone", vec![0x0a]),
        ("a length beyond all memory", [&[0x0a][..], &[0xff; 9], &[0x01]].concat()),
        ("a number for a text", vec![0x08, 1]),
        ("text that is not UTF-8", vec![0x0a, 2, 0xc3, 0x28]),
        ("half of a surrogate pair", vec![0x0a, 3, 0xed, 0xa0, 0x80]),
        ("field 0", vec![0x02, 0]),
        ("a group without an end", vec![0x0b; 200]),
    ];
    for rpc in ["Register", "Login", "GetUser"] {
        for (case, message) in &cases {
            // GetUser knows only the first of the fields that the whole message has.
            if rpc == "GetUser" && message.len() == whole.len() - 1 {
                continue;
            }
            let result = call_raw(&client, &method(rpc), message.clone(), authorized.clone()).await;
            let expected = refused(Code::InvalidArgument, "MALFORMED_MESSAGE");
            assert_eq!(refusal(result), expected, "{rpc}: {case}");
        }
    }
    assert_eq!(census(&service.database), [1, 1, 1, 1, 1]);
    client.login("ada@example.com", PASSWORD).await.unwrap();
}

async fn fields_of_tomorrow_are_passed_over(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    // Field 999 as a number, as a text and as eight bytes; and the first field twice: the last counts.
    let tail = [&[0xb8, 0x3e, 7][..], &[0xba, 0x3e, 2, 0xff, 0xff], &[0xb9, 0x3e], &[0; 8]].concat();
    let register =
        [registration("eve@example.com").encode_to_vec(), tail.clone(), b"\x0a\x0fada@example.com".to_vec()];
    call_raw(&client, &method("Register"), register.concat(), MetadataMap::new()).await.unwrap();
    let login = LoginRequest { email: "ada@example.com".into(), password: PASSWORD.into() };
    let login = [login.encode_to_vec(), tail.clone()].concat();
    let answer = call_raw(&client, &method("Login"), login, MetadataMap::new()).await.unwrap();
    let token = identity::proto::v1::LoginResponse::decode(answer.as_slice()).unwrap().access_token;
    let mut authorized = MetadataMap::new();
    authorized.insert("authorization", format!("Bearer {token}").parse().unwrap());
    call_raw(&client, &method("GetUser"), tail, authorized).await.unwrap();
}

async fn what_is_far_too_large_is_refused(engine: Engine) {
    let service = TestService::start(engine).await;
    let huge = RegisterRequest { email: "a".repeat(10_000_000), ..registration("") };
    for _ in 0..3 {
        let result = service.client().register(huge.clone()).await;
        assert_eq!(refusal(result), refused(Code::ResourceExhausted, "MESSAGE_TOO_LARGE"));
    }
    let result = service.client().login("ada@example.com", &huge.email).await;
    assert_eq!(refusal(result), refused(Code::ResourceExhausted, "MESSAGE_TOO_LARGE"));
    registered(&service, "ada@example.com").await;
}

/// What a client gets that sends what no gRPC library would.
enum Answer {
    Refused(Code, &'static str),
    /// In terms of HTTP, since it did not speak gRPC.
    Http(u16),
}

impl Answer {
    fn assert(&self, case: &str, reply: &Reply) {
        match *self {
            Self::Refused(code, reason) => assert_eq!(reply.refusal(), refused(code, reason), "{case}"),
            Self::Http(status) => assert_eq!(reply.http_status, status, "{case}"),
        }
        assert!(!reply.request_id().is_empty(), "{case}");
    }
}

async fn whatever_is_sent_is_answered_and_the_service_goes_on(engine: Engine) {
    let service = TestService::start(engine).await;
    let ada = registered(&service, "ada@example.com").await;
    let before = census(&service.database);

    let login = |email: &str, password: &str| {
        let message = LoginRequest { email: email.into(), password: password.into() };
        frame(&message.encode_to_vec())
    };
    let valid = || login("ada@example.com", PASSWORD);
    let to = |path: &str, body| grpc(path, &[], body);
    let with = |name, value: &str| grpc(LOGIN, &[(name, value)], valid());
    let as_type = |kind: &str| {
        let mut request = grpc(LOGIN, &[], valid());
        request.headers_mut().insert("content-type", kind.parse().unwrap());
        request
    };
    let malformed = || Answer::Refused(Code::InvalidArgument, "MALFORMED_MESSAGE");
    let invalid = || Answer::Refused(Code::InvalidArgument, "INVALID_FIELDS");
    let bad_deadline = || Answer::Refused(Code::InvalidArgument, "MALFORMED_DEADLINE");
    let too_large = || Answer::Refused(Code::ResourceExhausted, "MESSAGE_TOO_LARGE");
    let unknown = || Answer::Refused(Code::Unimplemented, "UNKNOWN_METHOD");
    let cases = [
        ("an unknown method", to("/identity.v1.IdentityService/Fly", valid()), unknown()),
        ("an unknown service", to("/no.such.Service/Login", valid()), unknown()),
        ("no method at all", to("/", valid()), unknown()),
        ("JSON", as_type("application/json"), Answer::Http(415)),
        ("gRPC-Web", as_type("application/grpc-web"), Answer::Http(415)),
        ("a deadline without a unit", with("grpc-timeout", "1"), bad_deadline()),
        ("a deadline without a number", with("grpc-timeout", "S"), bad_deadline()),
        ("a deadline before the call", with("grpc-timeout", "-1S"), bad_deadline()),
        ("a deadline of nine digits", with("grpc-timeout", "123456789S"), bad_deadline()),
        (
            "a deadline that is over",
            with("grpc-timeout", "0n"),
            Answer::Refused(Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        ),
        ("an e-mail of 10 MB", to(LOGIN, login(&"a".repeat(10_000_000), PASSWORD)), too_large()),
        ("NUL bytes", to(LOGIN, login("ada@example.com\0", "\0")), invalid()),
        ("NUL bytes and nothing else", to(LOGIN, login(&"\0".repeat(1_000), PASSWORD)), invalid()),
        ("text that is not UTF-8", to(LOGIN, frame(&[0x0a, 2, 0xc3, 0x28])), malformed()),
        ("a message that ends too early", to(LOGIN, frame(&[0x0a, 5, b'a'])), malformed()),
        ("a frame that ends too early", to(LOGIN, valid()[..9].to_vec()), malformed()),
        ("no frame", to(LOGIN, Vec::new()), malformed()),
        ("a length of 4 GiB", to(LOGIN, vec![0, 0xff, 0xff, 0xff, 0xff]), too_large()),
        ("noise", to(LOGIN, (0..=255).rev().cycle().take(4_096).collect()), malformed()),
    ];
    let mut client = RawClient::connect(service.server.address()).await;
    for (case, request, answer) in cases {
        answer.assert(case, &client.send(request).await);
    }

    // On the same connection as all that, and on others.
    let absurd = client.send(with("grpc-timeout", "99999999H")).await;
    assert_eq!(absurd.status().code(), Code::Ok);
    assert_eq!(service.client().get_user(Some(&ada.access_token), "").await.unwrap().user, ada.user);
    service.client().login("ada@example.com", PASSWORD).await.unwrap();
    let [tenants, users, names, passwords, sessions] = before;
    assert_eq!(census(&service.database), [tenants, users, names, passwords, sessions + 2]);
}
