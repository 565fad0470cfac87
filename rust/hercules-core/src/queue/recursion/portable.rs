//! The portable tier: arrays, for the compiler to make vectors of.

#[derive(Clone, Copy)]
struct Array(Row);

impl Array {
    #[inline(always)]
    fn zip(self, other: Self, op: impl Fn(f64, f64) -> f64) -> Self {
        Self(std::array::from_fn(|lane| op(self.0[lane], other.0[lane])))
    }
}

impl kernels::Lanes for Array {
    type Mask = [bool; LANES];
    #[inline(always)]
    unsafe fn load(from: &Row) -> Self {
        Self(*from)
    }
    #[inline(always)]
    unsafe fn store(self, to: &mut Row) {
        *to = self.0;
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn at_most(self, other: Self) -> [bool; LANES] {
        std::array::from_fn(|lane| self.0[lane] <= other.0[lane])
    }
    #[inline(always)]
    unsafe fn precedes(self, number: Self, other: Self, other_number: Self) -> [bool; LANES] {
        std::array::from_fn(|lane| (self.0[lane], number.0[lane]) < (other.0[lane], other_number.0[lane]))
    }
    #[inline(always)]
    unsafe fn where_set(self, mask: [bool; LANES], other: Self) -> Self {
        Self(std::array::from_fn(|lane| if mask[lane] { self.0[lane] } else { other.0[lane] }))
    }
}

super::kernels::define_kernels!(Array);
