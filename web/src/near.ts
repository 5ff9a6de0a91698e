/** What is far from the view is loaded when the user comes near it. */

/** How far beyond the view, as CSS writes it: about a screen. */
const MARGIN = "600px 0px";

/** Calls `come` once, when the element is near what is seen of its list. Returns what ends the waiting. */
export function whenNear(element: Element, come: () => void): () => void {
  const observer = new IntersectionObserver(
    (entries) => {
      if (!entries.some(({ isIntersecting }) => isIntersecting)) return;
      observer.disconnect();
      come();
    },
    { root: element.closest(".scroll"), rootMargin: MARGIN },
  );
  observer.observe(element);
  return () => observer.disconnect();
}
