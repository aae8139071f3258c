-- Which log next_offset is of: the broker's id of the topic when the stage first read it. A topic that is deleted and made
-- anew under the same name has another id. Null: not known, as where an older program wrote the row.
alter table stage_progress add column topic_id uuid;
