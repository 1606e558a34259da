//! The forms in which an event is sent: how it is encoded, and what stands around it.
//!
//! Both are chosen when a session opens and hold until its end. Whoever keeps one frame for each
//! form indexes by [`WireForm::index`] a table of [`WireForm::COUNT`], see [`PerForm`].

/// How commands, events and bodies are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// JSON, as text.
    Json,
    /// MessagePack.
    MsgPack,
}

impl Encoding {
    /// Every encoding, in the order of their discriminants.
    pub const ALL: [Self; 2] = [Self::Json, Self::MsgPack];
}

/// What stands around an encoded event on its way to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Framing {
    /// One WebSocket message in one frame: text for JSON, binary for MessagePack.
    WebSocket,
}

impl Framing {
    /// Every framing, in the order of their discriminants.
    pub const ALL: [Self; 1] = [Self::WebSocket];
}

/// In which form a session is sent its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WireForm {
    /// How an event is written.
    pub encoding: Encoding,
    /// What stands around it.
    pub framing: Framing,
}

impl WireForm {
    /// How many forms there are.
    pub const COUNT: usize = Encoding::ALL.len() * Framing::ALL.len();

    /// A message of a WebSocket in this encoding.
    #[must_use]
    pub const fn websocket(encoding: Encoding) -> Self {
        Self {
            encoding,
            framing: Framing::WebSocket,
        }
    }

    /// The place of this form in a table of all, below [`WireForm::COUNT`].
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self.framing as usize * Encoding::ALL.len() + self.encoding as usize
    }
}

/// One value for each form.
#[derive(Debug, Default)]
pub struct PerForm<T>([T; WireForm::COUNT]);

impl<T> std::ops::Index<WireForm> for PerForm<T> {
    type Output = T;

    #[inline]
    fn index(&self, form: WireForm) -> &T {
        &self.0[form.index()]
    }
}

impl<T> std::ops::IndexMut<WireForm> for PerForm<T> {
    #[inline]
    fn index_mut(&mut self, form: WireForm) -> &mut T {
        &mut self.0[form.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_has_a_place_of_its_own_in_a_table() {
        let forms = Framing::ALL.iter().flat_map(|framing| {
            Encoding::ALL.map(|encoding| WireForm {
                encoding,
                framing: *framing,
            })
        });
        let places: Vec<_> = forms.map(WireForm::index).collect();
        assert_eq!(places, (0..WireForm::COUNT).collect::<Vec<_>>());
    }

    #[test]
    fn a_form_is_no_larger_than_its_encoding() {
        assert_eq!(size_of::<WireForm>(), size_of::<Encoding>());
    }
}
