//! The frames of HTTP/2 that an attack sends and reads (RFC 9113, 4 and 6), and headers without compression
//! (RFC 7541).

/// What a client begins with (RFC 9113, 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const HEADER_BYTES: usize = 9;

pub(super) const DATA: u8 = 0x0;
pub(super) const HEADERS: u8 = 0x1;
pub(super) const RST_STREAM: u8 = 0x3;
pub(super) const SETTINGS: u8 = 0x4;
pub(super) const PING: u8 = 0x6;
pub(super) const GOAWAY: u8 = 0x7;
pub(super) const WINDOW_UPDATE: u8 = 0x8;

pub(super) const END_STREAM: u8 = 0x1;
pub(super) const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

const INITIAL_WINDOW_SIZE: u16 = 0x4;
const CANCEL: u32 = 0x8;

/// The largest frame that a peer takes unless it says otherwise.
pub(super) const MAX_FRAME_BYTES: usize = 16_384;

/// What stands before the payload of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Header {
    pub(super) fn parse(bytes: [u8; HEADER_BYTES]) -> Self {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = bytes;
        let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        // The first bit is reserved.
        let stream = u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff;
        Self { length, kind, flags, stream }
    }
}

/// Frames, one behind the other, as they are sent.
#[derive(Debug, Default)]
pub(crate) struct Frames(Vec<u8>);

impl Frames {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        assert!(payload.len() <= MAX_FRAME_BYTES, "a frame of {} bytes", payload.len());
        let length = (payload.len() as u32).to_be_bytes();
        self.0.extend_from_slice(&length[1..]);
        self.0.extend_from_slice(&[kind, flags]);
        self.0.extend_from_slice(&stream.to_be_bytes());
        self.0.extend_from_slice(payload);
    }

    /// The beginning of a connection, whose streams the peer may send `window` bytes ahead on.
    pub(super) fn preface(window: Option<u32>) -> Self {
        let mut frames = Self(PREFACE.to_vec());
        let settings = window.map(|window| {
            [INITIAL_WINDOW_SIZE.to_be_bytes().as_slice(), window.to_be_bytes().as_slice()].concat()
        });
        frames.frame(SETTINGS, 0, 0, &settings.unwrap_or_default());
        frames
    }

    /// The answer to the peer's settings.
    pub(super) fn settings_ack() -> Self {
        let mut frames = Self::default();
        frames.frame(SETTINGS, ACK, 0, &[]);
        frames
    }

    /// The answer to a PING.
    pub(super) fn ping_ack(payload: &[u8]) -> Self {
        let mut frames = Self::default();
        frames.frame(PING, ACK, 0, payload);
        frames
    }

    /// Opens a stream with a call, whose message ends it.
    pub(super) fn call(&mut self, stream: u32, call: &Call) {
        self.frame(HEADERS, END_HEADERS, stream, &call.headers);
        self.frame(DATA, END_STREAM, stream, &call.message);
    }

    /// Gives a stream up.
    pub(super) fn reset(&mut self, stream: u32) {
        self.frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
    }
}

/// A gRPC call as it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    headers: Vec<u8>,
    message: Vec<u8>,
}

impl Call {
    /// A call of `path` with `metadata` and `message`.
    pub(crate) fn new(path: &str, metadata: &[(&str, &str)], message: &[u8]) -> Self {
        // `:method: POST` and `:scheme: http` stand in HPACK's static table (RFC 7541, A).
        let mut headers = vec![0x83, 0x86];
        let mandatory = [
            (":path", path),
            (":authority", "identity"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        for (name, value) in mandatory.iter().chain(metadata) {
            // A literal that goes into no table, with a name of its own (RFC 7541, 6.2.2).
            headers.push(0x00);
            for text in [name, value] {
                length(&mut headers, text.len());
                headers.extend_from_slice(text.as_bytes());
            }
        }
        let size = u32::try_from(message.len()).expect("a message has less than 4 GiB").to_be_bytes();
        Self { headers, message: [&[0], size.as_slice(), message].concat() }
    }

    /// How many bytes of the connection's window it takes.
    pub(super) fn window(&self) -> u32 {
        u32::try_from(self.message.len()).expect("a message fits into a frame")
    }
}

/// The length of a text that is not Huffman-coded, as an integer with a prefix of seven bits (RFC 7541, 5.1).
fn length(out: &mut Vec<u8>, length: usize) {
    const PREFIX: usize = 0x7f;
    if length < PREFIX {
        out.push(length as u8);
        return;
    }
    out.push(PREFIX as u8);
    let mut rest = length - PREFIX;
    while rest >= 0x80 {
        out.push((rest % 0x80) as u8 | 0x80);
        rest /= 0x80;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let mut frames = Frames::default();
        frames.reset(0x0102_0305);
        let bytes = frames.into_bytes();
        let header = Header::parse(bytes[..HEADER_BYTES].try_into().unwrap());
        assert_eq!(header, Header { length: 4, kind: RST_STREAM, flags: 0, stream: 0x0102_0305 });
        assert_eq!(bytes[HEADER_BYTES..], [0, 0, 0, 8]);
    }

    #[test]
    fn the_reserved_bit_of_a_stream_counts_for_nothing() {
        let header = Header::parse([0, 1, 2, PING, ACK, 0x80, 0, 0, 7]);
        assert_eq!(header, Header { length: 258, kind: PING, flags: ACK, stream: 7 });
    }

    /// RFC 7541, C.1.2, with a prefix of seven bits instead of five.
    #[test]
    fn lengths_are_integers_of_hpack() {
        for (number, bytes) in [
            (0, [0].as_slice()),
            (126, &[126]),
            (127, &[127, 0]),
            (254, &[127, 127]),
            (255, &[127, 0x80, 1]),
            (1_337, &[127, 0xba, 9]),
        ] {
            let mut out = Vec::new();
            length(&mut out, number);
            assert_eq!(out, bytes, "{number}");
        }
    }

    #[test]
    fn the_window_goes_into_the_first_settings_and_is_left_out_by_default() {
        let bytes = Frames::preface(Some(0)).into_bytes();
        assert_eq!(bytes[PREFACE.len()..], [0, 0, 6, SETTINGS, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]);
        let bytes = Frames::preface(None).into_bytes();
        assert_eq!(bytes[PREFACE.len()..], [0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]);
    }
}
