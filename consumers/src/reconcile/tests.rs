//! Each finding where it must be found, and quiet where all is well.
//!
//! - `tale`: one order as topics and tables tell it
//! - `scene`: all of them, and the auditor's word on them
//! - one file per kind of finding, and `supervised` for workflows; `sound` for none; `telling` for how it reads

mod tale;
mod scene;
mod sound;
mod lost;
mod duplicated;
mod phantom;
mod mismatched;
mod supervised;
mod telling;
