-- Delivery: how far each stage is, what it decided but has not yet told, what it could not apply.

-- One row per partition a stage reads. next_offset and the batch's effects commit together: this row is
-- the truth about progress, Kafka's committed offsets are only for tools. epoch rises with every owner.
create table stage_progress (
    stage        text        not null,
    topic        text        not null,
    partition    integer     not null,
    next_offset  bigint      not null,
    epoch        bigint      not null,
    owner        text        not null,
    updated_at   timestamptz not null default now(),
    constraint stage_progress_pkey primary key (stage, topic, partition)
) with (fillfactor = 10); -- updated with every batch: room for HOT updates on its own page

-- One row per committed batch whose effects are not yet known to be out: encoded, compressed.
create table outbox (
    stage        text        not null,
    topic        text        not null,
    partition    integer     not null,
    epoch        bigint      not null, -- of the owner that decided them; after a rewind the same batch may come again
    next_offset  bigint      not null, -- of the batch that decided them
    effects      bytea       not null,
    effect_count integer     not null,
    created_at   timestamptz not null default now(),
    constraint outbox_pkey primary key (stage, topic, partition, epoch, next_offset)
);
alter table outbox alter column effects set storage external; -- compressed already

-- Records that can never be applied, and those waiting behind one of the same order, byte for byte.
create table dead_letters (
    dead_letter_id   bigint      generated always as identity,
    stage            text        not null,
    topic            text        not null,
    partition        integer     not null,
    record_offset    bigint      not null,
    record_time      timestamptz,
    order_id         uuid,       -- null when the key is no order id
    event_id         uuid,
    code             text        not null, -- from a closed set
    detail           text        not null,
    state            text        not null,
    attempts         integer     not null default 1,
    record_key       bytea,
    record_value     bytea,
    header_names     text[]      not null,
    header_values    bytea[]     not null,
    created_at       timestamptz not null default now(),
    updated_at       timestamptz not null default now(),
    constraint dead_letters_pkey primary key (dead_letter_id),
    constraint dead_letters_state_check check (state in ('open', 'parked', 'replaying', 'replayed', 'discarded'))
);
-- Not unique: after a rewind, or on a topic made anew, an offset may be set aside again; the fence lets each through once.
create index dead_letters_record_idx on dead_letters (topic, partition, record_offset);
create index dead_letters_order_idx on dead_letters (stage, order_id) where state in ('open', 'parked', 'replaying');

-- Orders whose later events wait at a stage until its dead letter is replayed or discarded.
create table parked_orders (
    stage          text        not null,
    order_id       uuid        not null,
    dead_letter_id bigint      not null,
    since          timestamptz not null default now(),
    constraint parked_orders_pkey primary key (stage, order_id)
);

-- Who did what to which dead letter.
create table dead_letter_actions (
    action_id      bigint      generated always as identity,
    dead_letter_id bigint      not null,
    action         text        not null,
    actor          text        not null,
    taken_at       timestamptz not null default now(),
    constraint dead_letter_actions_pkey primary key (action_id)
);
create index dead_letter_actions_letter_idx on dead_letter_actions (dead_letter_id);
