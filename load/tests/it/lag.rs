//! Lag that is told: by a stage about itself, and by the lag exporter from outside.
//!
//! - `held`: what a stage says that has more in hand than it can do
//! - `sources`: both of them while all is well, and in every kind of trouble
//! - `replicas`: several processes of one stage, of which each tells its part

mod watched;
mod held;
mod sources;
mod replicas;
