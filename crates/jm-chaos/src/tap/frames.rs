//! AMQP frames in one direction of a connection, as events.

use std::collections::HashMap;

use amq_protocol::{
    frame::{AMQPFrame, parse_frame},
    protocol::{AMQPClass, basic, channel, confirm, connection},
};

use crate::{
    history::{Log, Verdict, What},
    message::{Id, Queue},
};

/// Where the frames come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Broker,
}

/// Type, channel and size before a frame's payload.
const HEAD: usize = 7;
/// What AMQP puts first on a connection: `AMQP` and the version.
const PROTOCOL_HEADER: usize = 8;
/// The type of a frame with a part of a body.
const BODY: u8 = 3;

/// Reads frames from pieces of a stream.
#[derive(Debug)]
pub(crate) struct Frames {
    connection: u32,
    side: Side,
    /// The beginning of a frame whose end has not come yet.
    rest: Vec<u8>,
    channels: HashMap<u16, Channel>,
    greeted: bool,
}

#[derive(Debug, Default)]
struct Channel {
    /// A message of which the properties are still to come.
    content: Option<Content>,
    /// Messages since the switch to confirms.
    published: Option<u64>,
}

#[derive(Debug)]
enum Content {
    Publish { queue: Option<(Queue, bool)> },
    Deliver { tag: u64, redelivered: bool },
    Return,
}

impl Frames {
    pub(crate) fn new(connection: u32, side: Side) -> Self {
        Self { connection, side, rest: Vec::new(), channels: HashMap::new(), greeted: false }
    }

    /// Takes a piece of the stream, and records the events whose frames are complete with it.
    pub(crate) fn read(&mut self, piece: &[u8], log: &Log) {
        self.rest.extend_from_slice(piece);
        let rest = std::mem::take(&mut self.rest);
        let mut events = Vec::new();
        let mut from = 0;
        if !self.greeted && self.side == Side::Client && rest.len() >= PROTOCOL_HEADER {
            from = PROTOCOL_HEADER;
            self.greeted = true;
        }
        if self.greeted || self.side == Side::Broker {
            while let Some(frame) = frame_at(&rest[from..]) {
                if frame[0] != BODY
                    && let Ok((_, frame)) = parse_frame(frame)
                {
                    events.extend(self.event(frame));
                }
                from += frame.len();
            }
        }
        self.rest.extend_from_slice(&rest[from..]);
        if !events.is_empty() {
            log.add_all(events);
        }
    }

    fn event(&mut self, frame: AMQPFrame) -> Option<What> {
        let connection = self.connection;
        match frame {
            AMQPFrame::Header(channel, header) => {
                let id = header.properties.message_id();
                let id = id.as_ref().map_or(Id::FOREIGN, |id| Id::parse(id.as_str()));
                self.content(channel, id)
            }
            AMQPFrame::Method(channel, AMQPClass::Basic(method)) => self.basic(channel, method),
            AMQPFrame::Method(channel, AMQPClass::Confirm(confirm::AMQPMethod::Select(_))) => {
                self.channels.entry(channel).or_default().published = Some(0);
                None
            }
            AMQPFrame::Method(channel, AMQPClass::Channel(method)) => match method {
                channel::AMQPMethod::Open(_) => {
                    self.channels.insert(channel, Channel::default());
                    None
                }
                channel::AMQPMethod::Close(close) => Some(self.closed(channel, close.reply_code)),
                _ => None,
            },
            AMQPFrame::Method(_, AMQPClass::Connection(connection::AMQPMethod::Close(close))) => Some(What::Closed {
                connection,
                channel: 0,
                code: close.reply_code,
                by_broker: self.side == Side::Broker,
            }),
            _ => None,
        }
    }

    fn closed(&self, channel: u16, code: u16) -> What {
        What::Closed { connection: self.connection, channel, code, by_broker: self.side == Side::Broker }
    }

    fn basic(&mut self, channel: u16, method: basic::AMQPMethod) -> Option<What> {
        use basic::AMQPMethod as Basic;
        let (connection, side) = (self.connection, self.side);
        let settled = |tag, multiple, verdict| What::SettledBy { connection, channel, tag, multiple, verdict };
        let confirmed = |number, multiple, ok| What::Confirmed { connection, channel, number, multiple, ok };
        let verdict = |requeue| if requeue { Verdict::Requeue } else { Verdict::Reject };
        let content = match method {
            Basic::Ack(ack) if side == Side::Broker => return Some(confirmed(ack.delivery_tag, ack.multiple, true)),
            Basic::Nack(nack) if side == Side::Broker => {
                return Some(confirmed(nack.delivery_tag, nack.multiple, false));
            }
            Basic::Ack(ack) => return Some(settled(ack.delivery_tag, ack.multiple, Verdict::Ack)),
            Basic::Nack(nack) => return Some(settled(nack.delivery_tag, nack.multiple, verdict(nack.requeue))),
            Basic::Reject(reject) => return Some(settled(reject.delivery_tag, false, verdict(reject.requeue))),
            Basic::ConsumeOk(_) => return Some(What::ConsumeOk { connection, channel }),
            Basic::CancelOk(_) => return Some(What::CancelOk { connection, channel }),
            Basic::Cancel(_) if side == Side::Broker => return Some(What::Cancelled { connection, channel }),
            Basic::Publish(publish) => Content::Publish { queue: Queue::named(publish.routing_key.as_str()) },
            Basic::Deliver(deliver) => Content::Deliver { tag: deliver.delivery_tag, redelivered: deliver.redelivered },
            Basic::Return(_) => Content::Return,
            _ => return None,
        };
        self.channels.entry(channel).or_default().content = Some(content);
        None
    }

    /// The properties of a message have come.
    fn content(&mut self, channel: u16, id: Id) -> Option<What> {
        let connection = self.connection;
        let state = self.channels.entry(channel).or_default();
        match state.content.take()? {
            Content::Publish { queue } => {
                let number = state.published.as_mut().map_or(0, |published| {
                    *published += 1;
                    *published
                });
                let (queue, dead) = queue?;
                Some(What::Published { connection, channel, number, id, queue, dead })
            }
            Content::Deliver { tag, redelivered } => {
                Some(What::Delivered { connection, channel, tag, id, redelivered })
            }
            Content::Return => Some(What::Returned { connection, channel, id }),
        }
    }
}

/// The whole frame at the beginning of these bytes, if its end has come.
fn frame_at(bytes: &[u8]) -> Option<&[u8]> {
    let size = bytes.get(3..HEAD)?;
    let size = u32::from_be_bytes(size.try_into().ok()?);
    bytes.get(..HEAD + usize::try_from(size).ok()? + 1)
}
