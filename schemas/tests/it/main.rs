//! The wire contract as others see it: committed documents, golden records, hostile records. And who may use whom.

#[cfg(test)]
mod crates;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod generate;
#[cfg(test)]
mod properties;
