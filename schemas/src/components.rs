//! Who sends and who receives which events: the edges of the pipeline, for documents and for tests that
//! hold each component to them.

use crate::EventType::{
    self, CancelRequested, OrderCancelled, OrderPlaced, PaymentCaptured, PaymentDeclined,
    PaymentRefunded, RefundRequested, ShipmentArranged, ShipmentFailed, StockRejected,
    StockReleaseRequested, StockReleased, StockReserved,
};
use crate::Topic;

/// A process, or a stage inside one, that writes or reads topics.
#[derive(Clone, Copy, Debug)]
pub struct Component {
    /// Name of the stage or program.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// Whether it is a stage: reads in a consumer group named after it, and writes dead letters.
    pub is_stage: bool,
    /// Event types it writes, all of them on one topic.
    pub sends: &'static [EventType],
    /// Event types it acts on. It skips the other types of their topics.
    pub receives: &'static [EventType],
}

/// Everything that happens to an order by itself.
const LIFE_OF_AN_ORDER: [EventType; 10] = [
    OrderPlaced,
    CancelRequested,
    StockReserved,
    StockRejected,
    StockReleased,
    PaymentCaptured,
    PaymentDeclined,
    PaymentRefunded,
    ShipmentArranged,
    ShipmentFailed,
];

/// Every component, in the order in which an order meets them.
pub const COMPONENTS: [Component; 7] = [
    Component {
        name: "order-producer",
        summary: "Takes orders and cancellations over HTTP.",
        is_stage: false,
        sends: &[OrderPlaced, CancelRequested],
        receives: &[],
    },
    Component {
        name: "inventory",
        summary: "Reserves, rejects and releases stock.",
        is_stage: true,
        sends: &[StockReserved, StockRejected, StockReleased],
        receives: &[OrderPlaced, PaymentDeclined, ShipmentFailed, StockReleaseRequested],
    },
    Component {
        name: "payment",
        summary: "Captures and refunds payments.",
        is_stage: true,
        sends: &[PaymentCaptured, PaymentDeclined, PaymentRefunded],
        receives: &[StockReserved, ShipmentFailed, RefundRequested],
    },
    Component {
        name: "shipping",
        summary: "Arranges shipments, and decides whether a cancellation comes in time.",
        is_stage: true,
        sends: &[ShipmentArranged, ShipmentFailed],
        receives: &[PaymentCaptured, CancelRequested, OrderCancelled],
    },
    Component {
        name: "order",
        summary: "Keeps the projection of each order and its timeline.",
        is_stage: true,
        sends: &[],
        receives: &EventType::ALL,
    },
    Component {
        name: "workflow",
        summary: "Tells each order's supervision in Temporal what happened.",
        is_stage: true,
        sends: &[],
        receives: &LIFE_OF_AN_ORDER,
    },
    Component {
        name: "worker",
        summary: "Supervises each order in Temporal: deadlines, cancellation, compensation.",
        is_stage: false,
        sends: &[StockReleaseRequested, RefundRequested, OrderCancelled],
        receives: &[],
    },
];

impl Component {
    /// The component called `name`.
    pub fn named(name: &str) -> Option<&'static Self> {
        COMPONENTS.iter().find(|component| component.name == name)
    }

    /// What it writes on `topic`.
    pub fn sends_on(&self, topic: Topic) -> impl Iterator<Item = EventType> {
        self.sends.iter().copied().filter(move |event_type| event_type.topic() == topic)
    }

    /// What it acts on of `topic`.
    pub fn receives_from(&self, topic: Topic) -> impl Iterator<Item = EventType> {
        self.receives.iter().copied().filter(move |event_type| event_type.topic() == topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_type_has_one_writer() {
        for event_type in EventType::ALL {
            let writers = COMPONENTS.iter().filter(|c| c.sends.contains(&event_type)).count();

            assert_eq!(writers, 1, "{}", event_type.as_str());
        }
    }

    #[test]
    fn a_topic_has_one_writer() {
        for topic in Topic::ALL.into_iter().filter(|topic| *topic != Topic::DeadLetters) {
            let writers = COMPONENTS.iter().filter(|c| c.sends_on(topic).next().is_some()).count();

            assert_eq!(writers, 1, "{}", topic.name());
        }
    }
}
