//! States that rows can be in, as the tables spell them.

use anyhow::Context;

macro_rules! states {
    ($(#[$doc:meta])* $name:ident in $column:literal { $($state:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(super) enum $name {
            $($state),+
        }

        impl $name {
            pub(super) const ALL: &'static [Self] = &[$(Self::$state),+];

            pub(super) const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$state => $text),+
                }
            }

            pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
                let found = Self::ALL.iter().copied().find(|state| state.as_str() == text);
                found.with_context(|| format!(concat!($column, " holds {:?}, which is no state known here"), text))
            }
        }
    };
}

states! {
    /// Status of an order.
    Status in "orders.status" {
        Placed = "placed",
        Reserved = "reserved",
        Paid = "paid",
        Shipped = "shipped",
        Rejected = "rejected",
        Declined = "declined",
        Cancelled = "cancelled",
    }
}

states! {
    /// What inventory decided.
    ReservationState in "reservations.state" {
        Reserved = "reserved",
        Rejected = "rejected",
        Released = "released",
    }
}

states! {
    /// What payment decided.
    PaymentState in "payments.state" {
        Captured = "captured",
        Declined = "declined",
        Refunded = "refunded",
        Voided = "voided",
    }
}

states! {
    /// What shipping decided.
    ShipmentState in "shipments.state" {
        Arranged = "arranged",
        Cancelled = "cancelled",
        Refused = "refused",
    }
}
