"""Long outputs that are products of matrices: weights of pairs times components of columns."""

from __future__ import annotations

from ...lower.kernel import ROW
from .folding import Instance, MaxShifted
from .values import Known


class Matrix(MaxShifted):
    """One tile of weights (ROWS, COLUMNS) is multiplied into a tile (ROWS, components) of sums.

    The sums of weights alone, where the reduction wants them, and the maxima of exponentials are
    those of its parent. Pairs that a mask leaves out have weights of 0, of which infinite
    components and NaN make NaN: where that is a result, another program computes it.
    """

    def states(self) -> list[tuple[str, int]]:
        """The sum of weights; the sums of products are kept apart."""
        own = self.kernel.only
        return [(name, own.last) for name in self.weights(own)]

    @property
    def group(self) -> int:
        """Components of a tile."""
        return self.tiling.group

    def maxima(self) -> list[tuple[str, list[str]]]:
        """One, if there are exponentials."""
        own = self.kernel.only
        return [("top0", [*self.weights(own), "m"])] if own.rule.max_shifted else []

    def begin(self) -> None:
        """Totals of rows that have met nothing."""
        super().begin()
        self.text.line(f"tm = tl.zeros((ROWS, {self.group}), {self.outer.triton})")
        if self.compensated("m"):
            self.text.line(f"em = tl.zeros((ROWS, {self.group}), {self.outer.triton})")

    def reset(self) -> None:
        """The sums of a chunk."""
        super().reset()
        self.text.line(f"m = tl.zeros((ROWS, {self.group}), {self.inner.triton})")

    def fold(self, known: Known) -> None:
        """One block of columns: weights, then their product with the columns' components."""
        product = self.tiling.product
        assert product is not None
        assert self.kernel.output_loop is not None
        own = self.kernel.only
        for top, measured in self.maxima():
            self.maximum(known, own, 0, top, measured)
        (weight,) = self.values.emit([product.weight], known)
        if own.total is not None:
            (total,) = self.values.emit([own.total], known)
            for state, place in self.states():
                self.step(state, place, total)
        name = f"y{product.position}"
        # Columns beyond the last have numbers of 0, and weights that may be anything.
        inside = " & (tl.trans(c) < stop)" if self.values.mask else ""
        mask = f"(component < {self.kernel.output_loop.n}){inside}"
        text = self.text
        at = text.let(f"tl.trans({name}_at) + component * {name}_c")
        matrix = text.let(f"tl.load({at}, mask={mask}, other=0.0)")
        if self.values.counted:
            weight = text.let(f"tl.where({self.values.counted}, {weight}, 0.0)")
        weight = text.let(f"tl.broadcast_to({weight}, (ROWS, COLUMNS))")
        if self.inner.dtype == self.tiling.dtype == "float32":
            text.line(f"m = {self.values.dot(weight, matrix, 'm', exact=False)}")
            return
        weight, matrix = self.inner.cast(weight), self.inner.cast(matrix)
        text.line(f"m = m + tl.dot({weight}, {matrix}, out_dtype={self.inner.triton})")

    def parts(self, name: str) -> list[str]:
        """The parts of one state; the matrix is one."""
        return ["m"] if name == "m" else super().parts(name)

    def flush(self) -> None:
        """Add the chunk's sums to the totals."""
        for top, measured in self.maxima():
            self._rebase(top, top, measured)
        for name, _ in self.states():
            self._add(name, self._joined(name))
        self._add_matrix(self.outer.cast("m"))

    def _add_matrix(self, found: str) -> None:
        if self.compensated("m"):
            self._add_compensated("em", "tm", found)
        else:
            self.text.line(f"tm = tm + {found}")

    # ---- parts of the reduced axis -------------------------------------------------------------

    def entry_count(self) -> int:
        """Sums of products, the sum of weights, the maximum."""
        return self.group + len(self.states()) + len(self.maxima())

    def _place(self) -> str:
        return f"left + tl.arange(0, {self.group})[None, :] * ROWS + own_lanes"

    def _products(self) -> str:
        """The sums of products; NaN may be of pairs that a mask leaves out, and is refused."""
        found = "tm"
        if self.compensated("m"):
            found = self.text.let("tl.where(em == em, tm + em, tm)")
        if self.kernel.keep is not None:
            self.values.bail_out(f"{found} != {found}", ROW)
        return found

    def leave(self, first: int) -> None:
        """Write the entries."""
        line = self.text.line
        line(f"tl.store({self._place()}, tl.cast({self._products()}, tl.float64), mask=own)")
        rest = [*(entry for name, _ in self.states() for entry in self.closed(name))]
        rest += [f"t{top}" for top, _ in self.maxima()]
        for n, entry in enumerate(rest):
            at = f"left + {self.group + n} * ROWS + own_lanes"
            line(f"tl.store({at}, tl.cast({entry}, tl.float64), mask=own)")

    def join_parts(self, first: int) -> None:
        """Read the entries of a part, and merge them."""
        text = self.text
        matrix = text.let(f"tl.load({self._place()}, mask=own, other=0.0)")
        rest = [
            text.let(f"tl.load(left + {self.group + n} * ROWS + own_lanes, mask=own, other=0.0)")
            for n in range(len(self.states()) + len(self.maxima()))
        ]
        sums, tops = rest[: len(self.states())], rest[len(self.states()) :]
        for (top, measured), other in zip(self.maxima(), tops, strict=True):
            own = self.values.simd.cast(other)
            after = text.let(f"tl.maximum(t{top}, {own})")
            scale = text.let(f"tl.cast({self._scale(own, after)}, tl.float64)")
            sums = [text.let(f"{state} * {scale}") for state in sums]
            matrix = text.let(f"{matrix} * {scale}")
            self._rebase(top, after, measured)
        for (name, _), state in zip(self.states(), sums, strict=True):
            self._add(name, [self.outer.cast(state)])
        self._add_matrix(self.outer.cast(matrix))

    # ---- results -------------------------------------------------------------------------------

    def finish(self) -> list[tuple[Instance, list[str]]]:
        """All components at once."""
        total = [part for name, _ in self.states() for part in self.closed(name)] or [""]
        state, instance = self._products(), self.instances[0]
        top = self.outer.cast("ttop0") if self.maxima() else ""
        given = {"a": [state], "top": [top], "total": total, "count": ["count"]}
        given["a"] = [self._times_factor(instance, state)]
        targets = self.kernel.only.finished
        return [(instance, self._rule(targets, self._placeholders(targets, given), self.outer))]
