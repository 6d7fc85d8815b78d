//! Values, against a real server.

mod values;
