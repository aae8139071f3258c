//! Documents for people and tools, generated from the types: JSON Schemas and AsyncAPI.
