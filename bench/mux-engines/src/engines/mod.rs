//! The engines that are measured, each in a file of its own.

pub mod http2;
pub mod none;
pub mod own;
pub mod yamux;

/// Settings of an engine: as it comes, or with large windows and frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tuning {
    Default,
    Tuned,
}

/// Something to be done with every engine in turn, whatever its type.
pub trait Visitor {
    /// Called once for each row.
    fn visit<E: crate::engine::Engine>(&mut self, engine: E);
}

/// Shows every engine to `visitor`, in the order of the tables.
pub fn for_each(visitor: &mut impl Visitor) {
    visitor.visit(none::None);
    for tuning in [Tuning::Default, Tuning::Tuned] {
        visitor.visit(yamux::Yamux::new(tuning));
    }
    for tuning in [Tuning::Default, Tuning::Tuned] {
        visitor.visit(http2::Http2::new(tuning));
    }
    visitor.visit(own::Own);
}
