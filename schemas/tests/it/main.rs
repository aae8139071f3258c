//! The wire contract as others see it: committed documents, golden records, hostile records.

#[cfg(test)]
mod documents;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod generate;
#[cfg(test)]
mod properties;
