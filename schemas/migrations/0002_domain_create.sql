-- Domain: what each stage owns. Every table is keyed by order, so that a repeat meets the row it made.

-- Stock per SKU. available = on_hand - reserved; the check is the last guard against overselling.
create table stock (
    sku        text        not null,
    on_hand    bigint      not null,
    reserved   bigint      not null default 0,
    updated_at timestamptz not null default now(),
    constraint stock_pkey primary key (sku),
    constraint stock_reserved_check check (reserved between 0 and on_hand)
) with (fillfactor = 50); -- hot SKUs are updated with every batch

-- One row per order the inventory stage decided on, also when it decided against it.
create table reservations (
    order_id   uuid        not null,
    state      text        not null,
    reason     text,       -- of a rejection or release
    skus       text[]      not null, -- held (or formerly held) items, parallel to quantities
    quantities integer[]   not null,
    digest     bytea,      -- of what was ordered: tells a repeat from another order under the same id
    updated_at timestamptz not null default now(),
    constraint reservations_pkey primary key (order_id),
    constraint reservations_state_check check (state in ('reserved', 'rejected', 'released'))
) with (fillfactor = 90);

-- One row per order the payment stage decided on. 'voided': never charged, and never will be.
create table payments (
    order_id     uuid        not null,
    state        text        not null,
    payment_id   text,       -- the gateway's
    amount_cents bigint      not null,
    currency     text        not null,
    reason       text,       -- of a decline
    updated_at   timestamptz not null default now(),
    constraint payments_pkey primary key (order_id),
    constraint payments_state_check check (state in ('captured', 'declined', 'refunded', 'voided'))
) with (fillfactor = 90);

-- One row per order the shipping stage decided on. This row decides between shipping and cancelling:
-- whichever comes first inserts it.
create table shipments (
    order_id        uuid        not null,
    state           text        not null,
    carrier         text,
    tracking_number text,
    updated_at      timestamptz not null default now(),
    constraint shipments_pkey primary key (order_id),
    constraint shipments_state_check check (state in ('arranged', 'cancelled', 'refused'))
);

-- The projection. Every column but the ids is a join of facts (least, greatest, coalesce), so that events in
-- any order, any number of times, give the same row; status is computed from the facts and cannot disagree.
-- Details are null while only later facts are known: topics race each other.
create table orders (
    order_id            uuid        not null,
    customer_id         text,
    currency            text,
    total_cents         bigint,
    items               jsonb,
    placed_at           timestamptz,
    updated_at          timestamptz not null,
    reserved_at         timestamptz,
    rejected_at         timestamptz,
    paid_at             timestamptz,
    declined_at         timestamptz, -- payment declined; final once the stock is released for it
    refunded_at         timestamptz,
    shipped_at          timestamptz,
    released_at         timestamptz,
    cancel_requested_at timestamptz,
    release_reason      text,
    reason              text,        -- of a rejection or decline
    status              text        not null generated always as (
        case
            when shipped_at is not null then 'shipped'
            when rejected_at is not null then 'rejected'
            when release_reason = 'payment_declined' then 'declined'
            when released_at is not null then 'cancelled'
            when paid_at is not null then 'paid'
            when reserved_at is not null then 'reserved'
            else 'placed'
        end) stored,
    constraint orders_pkey primary key (order_id)
) with (fillfactor = 85); -- three to five updates per order, none of them touching the only index

-- How many orders have which status, kept by the projection in the same transaction, one row per partition it
-- reads so that partitions never wait for each other. The sum over rows is the truth; a single row may be negative.
create table order_status_counts (
    topic     text    not null,
    partition integer not null,
    status    text    not null,
    orders    bigint  not null,
    constraint order_status_counts_pkey primary key (topic, partition, status)
) with (fillfactor = 20);

-- The timeline: one row per event of an order.
create table order_events (
    order_id    uuid        not null,
    event_id    uuid        not null,
    event_type  text        not null,
    occurred_at timestamptz not null,
    reason      text,
    constraint order_events_pkey primary key (order_id, event_id)
);

-- For the sweep that finds orders which are not final in time: a summary per block range, so that new orders cost next
-- to nothing, and updates, which never move placed_at, stay within their page.
create index orders_placed_at_idx on orders using brin (placed_at) with (pages_per_range = 32, autosummarize = on);

-- Orders that have a workflow because they needed one (--supervise exceptions).
create table supervised_orders (
    order_id uuid        not null,
    since    timestamptz not null default now(),
    constraint supervised_orders_pkey primary key (order_id)
);

-- Until when orders were looked through for ones that are not final in time: one row.
create table supervision_sweeps (
    only_row    boolean     not null default true,
    swept_until timestamptz not null,
    constraint supervision_sweeps_pkey primary key (only_row),
    constraint supervision_sweeps_only_row_check check (only_row)
);
insert into supervision_sweeps (swept_until) values (now());
