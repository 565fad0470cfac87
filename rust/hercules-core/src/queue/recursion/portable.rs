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
}

super::kernels::define_kernels!(Array);
